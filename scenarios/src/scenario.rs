//! A scenario: a timeline as data, and its resolution into one plan a seed.

use crate::generator;
use serde::Deserialize;
use sim::draw::{draw_below, draw_between};
use sim::marks::CATALOG;
use sim::plan::{
    Brokers, Fault, FaultKind, Machine, Plan, Scripted, Stream, Topology, Trigger, Workload,
};

/// What can be wrong with a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// No file of that name.
    #[error(
        "there is no scenario `{name}`; use one of: {known}, or the path of a plan file (.toml)"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The file does not parse.
    #[error("scenario `{name}`: {reason}")]
    Malformed {
        /// Name of the scenario.
        name: String,
        /// The parser's words.
        reason: String,
    },
}

/// A scenario file. Times of records, streams and faults count from the document's T = 0, which lies
/// `zero_ms` after the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Name: the file's name without its ending.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Section of the document that it replays.
    pub section: String,
    /// What the story must have shown, beside the properties.
    pub expect: Vec<Expectation>,
    /// How its plans come about.
    source: Source,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// A timeline in the file.
    Timeline(Box<Timeline>),
    /// [`generator::storm`].
    Storm,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    section: String,
    #[serde(default)]
    generated: bool,
    start_unix_ms: Option<i64>,
    #[serde(default)]
    zero_ms: u64,
    active_ms: Option<u64>,
    settle_ms: Option<u64>,
    #[serde(default)]
    rotate_machines: bool,
    topology: Option<Topology>,
    #[serde(default)]
    processor: toml::Table,
    #[serde(default)]
    brokers: Brokers,
    refusal: Option<String>,
    #[serde(default)]
    vary: Vec<Variation>,
    #[serde(default)]
    streams: Vec<StreamSpec>,
    #[serde(default)]
    records: Vec<RecordSpec>,
    #[serde(default)]
    faults: Vec<FaultSpec>,
    #[serde(default)]
    expect: Vec<Expectation>,
}

#[derive(Debug, Clone, PartialEq)]
struct Timeline {
    start_unix_ms: i64,
    zero_ms: u64,
    active_ms: u64,
    settle_ms: u64,
    rotate_machines: bool,
    topology: Topology,
    processor: toml::Table,
    brokers: Brokers,
    refusal: Option<String>,
    vary: Vec<Variation>,
    streams: Vec<Stream>,
    records: Vec<RecordSpec>,
    faults: Vec<FaultSpec>,
}

/// A configuration value that differs between seeds: the first value with seed 0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variation {
    /// `section.key` of the processor's configuration.
    key: String,
    values: Vec<toml::Value>,
}

/// A stream of `sim::plan`, with its two moments counted from T = 0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct StreamSpec {
    from_ms: i64,
    until_ms: i64,
    #[serde(flatten)]
    rest: toml::Table,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordSpec {
    at_ms: i64,
    /// With seeds other than 0 it is sent up to this much earlier or later.
    #[serde(default)]
    jitter_ms: u64,
    key: Option<String>,
    value: String,
    #[serde(default = "once")]
    times: u64,
}

fn once() -> u64 {
    1
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct FaultSpec {
    at_ms: i64,
    /// With seeds other than 0 it comes up to this much earlier or later.
    #[serde(default)]
    jitter_ms: u64,
    /// With seeds other than 0 it lasts up to this many per cent shorter or longer.
    #[serde(default)]
    stretch_percent: u64,
    #[serde(default)]
    on: Option<Trigger>,
    #[serde(flatten)]
    kind: FaultKind,
}

/// What a run of the scenario must have shown: a proof that its hard path was really taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Expectation {
    /// So many recoveries.
    Recoveries {
        /// Lowest number.
        at_least: u64,
    },
    /// A kind of fault that really hit.
    Fault {
        /// The kind.
        name: String,
        /// Lowest number of hits.
        at_least: u64,
    },
    /// Faults of any kind that really hit.
    Faults {
        /// Lowest number.
        at_least: u64,
    },
    /// A mark of [`sim::marks`] that was reached.
    Mark {
        /// Its name.
        name: String,
        /// Lowest number of times.
        at_least: u64,
    },
    /// Records on the input topic.
    Records {
        /// Lowest number.
        at_least: u64,
    },
    /// Results with a revision above 0.
    Corrections {
        /// Of this ticker only.
        name: Option<String>,
        /// Of the window that starts then only, Unix seconds.
        window_start: Option<i64>,
        /// Lowest number.
        at_least: u64,
    },
    /// Dead letters.
    DeadLetters {
        /// Of this error type only.
        name: Option<String>,
        /// Lowest number.
        #[serde(default)]
        at_least: u64,
        /// Highest number.
        at_most: Option<u64>,
    },
    /// The last revision of one window.
    Window {
        /// Ticker.
        name: String,
        /// Unix seconds.
        window_start: i64,
        /// Events in it.
        count: u64,
        /// As printed in the result.
        open_price: Option<String>,
        /// As printed in the result.
        close_price: Option<String>,
    },
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// When the text is no scenario, with the parser's line.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|e| malformed(name, &e))?;
        for expected in &file.expect {
            if let Expectation::Mark { name: mark, .. } = expected
                && !CATALOG.iter().any(|known| known.name == mark)
            {
                let unknown =
                    format!("there is no mark `{mark}`; `tickproof prove --marks` lists them");
                return Err(malformed(name, &unknown));
            }
        }
        let source = if file.generated {
            Source::Storm
        } else {
            Source::Timeline(Box::new(timeline(name, &file)?))
        };
        Ok(Scenario {
            name: name.to_owned(),
            description: file.description,
            section: file.section,
            expect: file.expect,
            source,
        })
    }

    /// The plan of one seed: the document's very timeline for seed 0, varied around it for others.
    ///
    /// # Errors
    /// When a varied configuration key has no section.
    pub fn resolve(&self, seed: u64) -> Result<Plan, ScenarioError> {
        match &self.source {
            Source::Storm => Ok(generator::storm(&self.name, seed)),
            Source::Timeline(timeline) => timeline.resolve(&self.name, seed),
        }
    }

    /// True for the generated scenario, whose faults are laid over any duration.
    #[must_use]
    pub fn is_storm(&self) -> bool {
        self.source == Source::Storm
    }
}

fn malformed(name: &str, reason: &dyn std::fmt::Display) -> ScenarioError {
    ScenarioError::Malformed {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

fn timeline(name: &str, file: &File) -> Result<Timeline, ScenarioError> {
    let missing = |key: &str| malformed(name, &format!("the key `{key}` is missing"));
    let streams = file.streams.iter().map(|spec| {
        stream(spec, file.zero_ms).map_err(|e| malformed(name, &format!("a stream: {e}")))
    });
    Ok(Timeline {
        start_unix_ms: file.start_unix_ms.ok_or_else(|| missing("start_unix_ms"))?,
        zero_ms: file.zero_ms,
        active_ms: file.active_ms.ok_or_else(|| missing("active_ms"))? + file.zero_ms,
        settle_ms: file.settle_ms.ok_or_else(|| missing("settle_ms"))?,
        rotate_machines: file.rotate_machines,
        topology: file.topology.clone().ok_or_else(|| missing("topology"))?,
        processor: file.processor.clone(),
        brokers: file.brokers.clone(),
        refusal: file.refusal.clone(),
        vary: file.vary.clone(),
        streams: streams.collect::<Result<_, _>>()?,
        records: file.records.clone(),
        faults: file.faults.clone(),
    })
}

fn stream(spec: &StreamSpec, zero_ms: u64) -> Result<Stream, toml::de::Error> {
    let mut table = spec.rest.clone();
    for (key, at_ms) in [("from_ms", spec.from_ms), ("until_ms", spec.until_ms)] {
        let virtual_ms = after_zero(zero_ms, at_ms);
        let value = i64::try_from(virtual_ms).unwrap_or(i64::MAX);
        table.insert(key.to_owned(), toml::Value::Integer(value));
    }
    table.try_into()
}

/// Virtual milliseconds of a moment that counts from T = 0 (never before the start).
fn after_zero(zero_ms: u64, at_ms: i64) -> u64 {
    zero_ms.saturating_add_signed(at_ms)
}

impl Timeline {
    fn resolve(&self, name: &str, seed: u64) -> Result<Plan, ScenarioError> {
        let start_ms = i64::try_from(self.zero_ms).unwrap_or(i64::MAX);
        Ok(Plan {
            scenario: name.to_owned(),
            seed,
            start_unix_ms: self.start_unix_ms - start_ms,
            active_ms: self.active_ms,
            settle_ms: self.settle_ms,
            topology: self.topology.clone(),
            processor: self.configuration(name, seed)?,
            brokers: self.brokers.clone(),
            bug: None,
            refusal: self.refusal.clone(),
            workload: Workload {
                streams: self.streams.clone(),
                records: self.records(seed),
            },
            faults: self.faults(seed),
        })
    }

    fn configuration(&self, name: &str, seed: u64) -> Result<toml::Table, ScenarioError> {
        let mut table = self.processor.clone();
        for variation in &self.vary {
            let choices = variation.values.len() as u64;
            let choice = match seed {
                0 => 0,
                _ => draw_below(seed, "vary", &variation.key, 0, choices),
            };
            let index = usize::try_from(choice).unwrap_or(0);
            let Some(value) = variation.values.get(index) else {
                return Err(malformed(name, &"`vary` needs at least one value"));
            };
            put(&mut table, &variation.key, value.clone())
                .ok_or_else(|| malformed(name, &format!("`{}` is no key", variation.key)))?;
        }
        Ok(table)
    }

    fn records(&self, seed: u64) -> Vec<Scripted> {
        let mut records: Vec<Scripted> = (0_u64..)
            .zip(&self.records)
            .map(|(sequence, spec)| Scripted {
                at_ms: moved(seed, "record", sequence, spec.jitter_ms)
                    .apply(after_zero(self.zero_ms, spec.at_ms)),
                key: spec.key.clone(),
                value: spec.value.clone(),
                times: spec.times,
            })
            .collect();
        records.sort_by_key(|record| record.at_ms);
        records
    }

    fn faults(&self, seed: u64) -> Vec<Fault> {
        let mut faults: Vec<Fault> = (0_u64..)
            .zip(&self.faults)
            .map(|(sequence, spec)| {
                let mut kind = spec.kind.clone();
                if seed != 0 {
                    let percent = draw_between(
                        seed,
                        "fault",
                        "stretch",
                        sequence,
                        100_u64.saturating_sub(spec.stretch_percent),
                        100 + spec.stretch_percent,
                    );
                    stretch(&mut kind, percent);
                    if self.rotate_machines {
                        rotate(&mut kind, &self.topology, seed);
                    }
                }
                let at_ms = moved(seed, "fault", sequence, spec.jitter_ms)
                    .apply(after_zero(self.zero_ms, spec.at_ms));
                let on = spec.on.clone();
                Fault { at_ms, on, kind }
            })
            .collect();
        faults.sort_by_key(|fault| fault.at_ms);
        faults
    }
}

/// A move in time, to either side.
struct Move(i64);

impl Move {
    fn apply(&self, at_ms: u64) -> u64 {
        at_ms.saturating_add_signed(self.0)
    }
}

fn moved(seed: u64, who: &str, sequence: u64, jitter_ms: u64) -> Move {
    if seed == 0 || jitter_ms == 0 {
        return Move(0);
    }
    let span = draw_between(seed, who, "jitter", sequence, 0, 2 * jitter_ms);
    Move(i64::try_from(span).unwrap_or(0) - i64::try_from(jitter_ms).unwrap_or(0))
}

/// Puts `value` under the dotted `key`; `None` when the key is empty or leads through a value.
fn put(table: &mut toml::Table, key: &str, value: toml::Value) -> Option<()> {
    match key.split_once('.') {
        None if key.is_empty() => None,
        None => {
            table.insert(key.to_owned(), value);
            Some(())
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section.to_owned())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            put(inner.as_table_mut()?, rest, value)
        }
    }
}

fn stretch(kind: &mut FaultKind, percent: u64) {
    if let Some(length) = kind.length_ms_mut() {
        *length = *length * percent / 100;
    }
}

/// Gives the part of broker 1 (worker 0, …) to another machine, the same for all faults of a seed.
fn rotate(kind: &mut FaultKind, topology: &Topology, seed: u64) {
    let brokers = topology.brokers.max(1);
    let workers = topology.workers.max(1);
    let by = |what: &str, of: u32| {
        u32::try_from(draw_below(seed, "rotate", what, 0, u64::from(of))).unwrap_or(0)
    };
    let (broker_by, worker_by) = (by("brokers", brokers), by("workers", workers));
    kind.for_each_machine(|machine| match machine {
        Machine::Worker(worker) => *worker = (*worker + worker_by) % workers,
        Machine::Broker(broker) => *broker = (*broker - 1 + broker_by) % brokers + 1,
        Machine::Controller | Machine::Producer => {}
    });
}

#[cfg(test)]
mod tests {
    use super::Scenario;
    use crate::catalog;
    use sim::plan::FaultKind;

    #[test]
    fn a_mark_that_nobody_knows_is_no_expectation() {
        let scenario = |mark: &str| {
            let expect = format!("[[expect]]\nwhat = \"mark\"\nname = \"{mark}\"\nat_least = 1\n");
            let text = "description = \"d\"\nsection = \"s\"\ngenerated = true\n";
            Scenario::parse("mine", &format!("{text}{expect}"))
        };
        assert!(scenario("transaction-aborted").is_ok());
        let error = scenario("transaction-aborte").expect_err("it is misspelt");
        let error = error.to_string();
        assert!(
            error.contains("there is no mark `transaction-aborte`"),
            "{error}"
        );
        assert!(error.contains("prove --marks"), "{error}");
    }

    #[test]
    fn seed_0_is_the_documents_own_timeline() {
        let plan = catalog::find("job-crash")
            .and_then(|scenario| scenario.resolve(0))
            .expect("resolves");
        let zero_unix_ms = plan.start_unix_ms + 400_000;
        assert_eq!(zero_unix_ms, 1_609_459_200_000);
        let crashes: Vec<u64> = plan.faults.iter().map(|fault| fault.at_ms).collect();
        assert_eq!(crashes, [415_000, 430_000]);
        assert!(plan.faults.iter().all(|fault| fault.kind
            == FaultKind::WorkerCrash {
                worker: 0,
                down_ms: 1_000
            }));
    }

    #[test]
    fn other_seeds_vary_around_it_within_the_jitter() {
        let scenario = catalog::find("job-crash").expect("exists");
        let mut moments = std::collections::BTreeSet::new();
        for seed in 1..30 {
            let plan = scenario.resolve(seed).expect("resolves");
            let at_ms = plan.faults[0].at_ms;
            assert!((409_000..=438_000).contains(&at_ms), "{at_ms}");
            moments.insert(at_ms);
        }
        assert!(moments.len() > 20);
    }

    #[test]
    fn two_lost_brokers_stay_two_brokers_when_the_seed_picks_which() {
        let scenario = catalog::find("broker-loss-two").expect("exists");
        for seed in 0..30 {
            let plan = scenario.resolve(seed).expect("resolves");
            let brokers: std::collections::BTreeSet<u32> = plan
                .faults
                .iter()
                .filter_map(|fault| match fault.kind {
                    FaultKind::BrokerCrash { broker, .. } => Some(broker),
                    _ => None,
                })
                .collect();
            assert_eq!(brokers.len(), 2);
            assert!(brokers.iter().all(|broker| (1..=3).contains(broker)));
        }
    }

    #[test]
    fn the_late_event_comes_while_its_window_takes_corrections() {
        // Watermark between the emission at 10:06 and the retirement at 10:11.
        let scenario = catalog::find("late-data").expect("exists");
        for seed in 0..50 {
            let plan = scenario.resolve(seed).expect("resolves");
            let late = &plan.workload.records[1];
            assert!((365_000..655_000).contains(&late.at_ms), "{}", late.at_ms);
        }
    }

    #[test]
    fn a_wrong_file_names_what_is_wrong() {
        let error = Scenario::parse(
            "mine",
            "description = \"d\"\nsection = \"s\"\nfautls = []\n",
        )
        .expect_err("misspelt")
        .to_string();
        assert!(
            error.contains("mine") && error.contains("fautls"),
            "{error}"
        );
        let error = Scenario::parse("mine", "description = \"d\"\nsection = \"s\"\n")
            .expect_err("empty")
            .to_string();
        assert!(error.contains("start_unix_ms"), "{error}");
    }
}
