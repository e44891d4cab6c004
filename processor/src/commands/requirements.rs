//! What exactly-once needs of topics: the settings they are created with, and how found ones are judged.

use super::cluster::{Settings, Topic};
use super::verdict::{Finding, Verdict};
use processor::config::ProcessorConfig;

/// Kafka's own default, which covers a batch's overhead.
const BATCH_BYTES_DEFAULT: usize = 1_048_588;
/// A batch is larger than its only record by at most this.
const BATCH_OVERHEAD_BYTES: usize = 65_536;
const DAY_MS: i64 = 86_400_000;

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Events.
    Input,
    /// Window results.
    Output,
    /// Dead letters.
    DeadLetters,
    /// Which dead letters were replayed.
    Replays,
}

impl Purpose {
    /// All, in the order in which they are shown.
    pub const ALL: [Purpose; 4] = [
        Purpose::Input,
        Purpose::Output,
        Purpose::DeadLetters,
        Purpose::Replays,
    ];

    /// Name of the topic.
    pub fn topic(self, config: &ProcessorConfig) -> String {
        let kafka = &config.kafka;
        match self {
            Purpose::Input => kafka.input_topic.clone(),
            Purpose::Output => kafka.output_topic.clone(),
            Purpose::DeadLetters => kafka.dead_letter_topic.clone(),
            Purpose::Replays => replays_topic(config),
        }
    }
}

/// Where `dlq replay` keeps its ledger.
pub fn replays_topic(config: &ProcessorConfig) -> String {
    format!("{}.replays", config.kafka.dead_letter_topic)
}

/// Settings to create a topic with.
pub fn settings(purpose: Purpose, replicas: i32, config: &ProcessorConfig) -> Settings {
    let in_sync = if replicas >= 3 { "2" } else { "1" };
    let largest = (config.kafka.max_message_bytes + BATCH_OVERHEAD_BYTES).max(BATCH_BYTES_DEFAULT);
    let mut settings: Settings = [
        ("min.insync.replicas", in_sync.to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", largest.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let (cleanup, retention) = match purpose {
        Purpose::Input | Purpose::Output => ("delete", Some(7 * DAY_MS)),
        // Somebody has to find, mend and replay them.
        Purpose::DeadLetters => ("delete", Some(30 * DAY_MS)),
        Purpose::Replays => ("compact", None),
    };
    settings.insert("cleanup.policy".to_owned(), cleanup.to_owned());
    if let Some(retention) = retention {
        settings.insert("retention.ms".to_owned(), retention.to_string());
    }
    settings
}

/// Judges a topic that is there.
pub fn judge(
    purpose: Purpose,
    topic: &Topic,
    settings: &Settings,
    config: &ProcessorConfig,
) -> Vec<Finding> {
    let name = purpose.topic(config);
    let judge = Judge {
        about: format!("topic {name}"),
        name,
        settings,
    };
    let mut findings = vec![judge.replication(topic), judge.availability(topic)];
    findings.push(judge.min_in_sync(topic));
    findings.push(judge.unclean(topic));
    findings.push(judge.cleanup(purpose));
    if purpose != Purpose::Replays {
        findings.push(judge.retention(purpose, config));
        findings.push(judge.retention_bytes());
    }
    if purpose != Purpose::Input {
        findings.push(judge.message_bytes(config.kafka.max_message_bytes));
    }
    findings
}

struct Judge<'a> {
    about: String,
    name: String,
    settings: &'a Settings,
}

impl Judge<'_> {
    fn text(&self, key: &str) -> &str {
        self.settings.get(key).map_or("not told", String::as_str)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.settings.get(key)?.parse().ok()
    }

    fn set(&self, key: &str, value: impl ToString) -> String {
        format!(
            "kafka-configs --alter --entity-type topics --entity-name {} --add-config {key}={}",
            self.name,
            value.to_string()
        )
    }

    fn setting(&self, key: &str, verdict: Verdict, fix: impl FnOnce() -> String) -> Finding {
        let fix = if verdict == Verdict::Ok {
            String::new()
        } else {
            fix()
        };
        Finding::new(verdict, &self.about, key, self.text(key), fix)
    }

    fn replication(&self, topic: &Topic) -> Finding {
        let found = format!("{} ({} partitions)", topic.replicas, topic.partitions);
        if topic.replicas >= 3 {
            return Finding::ok(&self.about, "replication factor", found);
        }
        let fix = "for a development cluster only: one broker's loss stops or loses it; create it with \
                   --replication-factor 3";
        Finding::new(
            Verdict::Risky,
            &self.about,
            "replication factor",
            found,
            fix,
        )
    }

    fn availability(&self, topic: &Topic) -> Finding {
        let property = "in-sync replicas";
        let found = format!("{} of {}", topic.in_sync, topic.replicas);
        let least = self
            .number("min.insync.replicas")
            .unwrap_or(1)
            .unsigned_abs();
        if topic.leaderless > 0 {
            let found = format!("{} partitions without a leader", topic.leaderless);
            let fix = "start the brokers that hold them";
            return Finding::new(Verdict::Wrong, &self.about, property, found, fix);
        }
        if (topic.in_sync as u64) < least {
            let fix = format!("start brokers: writes need {least}");
            return Finding::new(Verdict::Wrong, &self.about, property, found, fix);
        }
        if topic.in_sync < topic.replicas {
            let fix = "start the missing brokers, or wait until they have caught up";
            return Finding::new(Verdict::Risky, &self.about, property, found, fix);
        }
        Finding::ok(&self.about, property, found)
    }

    fn min_in_sync(&self, topic: &Topic) -> Finding {
        let key = "min.insync.replicas";
        let (found, replicas) = (self.number(key).unwrap_or(1), topic.replicas as i64);
        if found >= replicas && replicas > 1 {
            return self.setting(key, Verdict::Risky, || {
                format!(
                    "one broker's loss stops all writes: {}",
                    self.set(key, replicas - 1)
                )
            });
        }
        let verdict = match (found >= 2, replicas >= 3) {
            (true, _) => Verdict::Ok,
            (false, true) => Verdict::Wrong,
            (false, false) => Verdict::Risky,
        };
        self.setting(key, verdict, || match verdict {
            Verdict::Wrong => format!(
                "what one broker alone has acknowledged is lost with it: {}",
                self.set(key, 2)
            ),
            _ => "2 needs three replicas: for a development cluster only".to_owned(),
        })
    }

    fn unclean(&self, topic: &Topic) -> Finding {
        let key = "unclean.leader.election.enable";
        let verdict = match (self.text(key), topic.replicas) {
            ("false", _) => Verdict::Ok,
            (_, 0 | 1) => Verdict::Risky,
            _ => Verdict::Wrong,
        };
        self.setting(key, verdict, || {
            format!(
                "a replica that lacks committed records may lead: {}",
                self.set(key, false)
            )
        })
    }

    fn cleanup(&self, purpose: Purpose) -> Finding {
        let key = "cleanup.policy";
        let compacts = self.text(key).contains("compact");
        let deletes = self.text(key).contains("delete");
        let (verdict, why, value) = match purpose {
            Purpose::Input if compacts => (Verdict::Wrong, "replays need every record", "delete"),
            Purpose::DeadLetters if compacts => (
                Verdict::Wrong,
                "dead letters of one key replace each other",
                "delete",
            ),
            Purpose::Output if compacts => {
                (Verdict::Risky, "older results of a ticker vanish", "delete")
            }
            Purpose::Replays if deletes => (
                Verdict::Wrong,
                "a forgotten replay could be made again",
                "compact",
            ),
            _ => (Verdict::Ok, "", ""),
        };
        self.setting(key, verdict, || format!("{why}: {}", self.set(key, value)))
    }

    fn retention(&self, purpose: Purpose, config: &ProcessorConfig) -> Finding {
        let key = "retention.ms";
        let found = match self.number(key) {
            Some(found) if found >= 0 => found,
            _ => return self.setting(key, Verdict::Ok, String::new),
        };
        // A replay reaches back to the last checkpoint, and over the time that nobody ran.
        let replay_ms = i64::try_from(config.checkpoint.interval_ms).unwrap_or(i64::MAX);
        let verdict = match purpose {
            Purpose::Input if found <= replay_ms.saturating_mul(2) => Verdict::Wrong,
            _ if found < DAY_MS => Verdict::Risky,
            _ => Verdict::Ok,
        };
        let value = (7 * DAY_MS).max(replay_ms.saturating_mul(10));
        self.setting(key, verdict, || {
            let what = match purpose {
                Purpose::Input => "a processor that stood still for longer, or must replay a checkpoint interval, cannot go on",
                _ => "nobody may have read them in time",
            };
            format!("{what}: {}", self.set(key, value))
        })
    }

    fn retention_bytes(&self) -> Finding {
        let key = "retention.bytes";
        let verdict = match self.number(key) {
            Some(found) if found >= 0 => Verdict::Risky,
            _ => Verdict::Ok,
        };
        self.setting(key, verdict, || {
            format!(
                "a burst may delete what is not processed yet: {}",
                self.set(key, -1)
            )
        })
    }

    fn message_bytes(&self, needed: usize) -> Finding {
        let key = "max.message.bytes";
        let enough = self.number(key).is_none_or(|found| found >= needed as i64);
        let verdict = if enough { Verdict::Ok } else { Verdict::Wrong };
        self.setting(key, verdict, || {
            format!(
                "a record of kafka.max_message_bytes = {needed} would be refused for ever: {}, or lower \
                 kafka.max_message_bytes",
                self.set(key, needed + BATCH_OVERHEAD_BYTES)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ProcessorConfig {
        ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid")
    }

    fn topic(replicas: usize) -> Topic {
        Topic {
            partitions: 6,
            replicas,
            in_sync: replicas,
            leaderless: 0,
        }
    }

    fn verdict_of(findings: &[Finding], property: &str) -> Verdict {
        let found = findings.iter().find(|finding| finding.property == property);
        found.expect("it is judged").verdict
    }

    #[test]
    fn topics_are_created_with_what_is_then_found_right() {
        for purpose in Purpose::ALL {
            let settings = settings(purpose, 3, &config());
            let findings = judge(purpose, &topic(3), &settings, &config());
            let wrong: Vec<&Finding> = findings
                .iter()
                .filter(|f| f.verdict != Verdict::Ok)
                .collect();
            assert!(wrong.is_empty(), "{purpose:?}: {wrong:?}");
        }
    }

    #[test]
    fn every_setting_that_breaks_exactly_once_is_wrong_and_has_a_fix() {
        let cases = [
            (Purpose::Input, "cleanup.policy", "compact"),
            (Purpose::Input, "cleanup.policy", "compact,delete"),
            (Purpose::Input, "retention.ms", "20000"),
            (Purpose::Output, "min.insync.replicas", "1"),
            (Purpose::Output, "unclean.leader.election.enable", "true"),
            (Purpose::Output, "max.message.bytes", "1000"),
            (Purpose::DeadLetters, "cleanup.policy", "compact"),
            (Purpose::Replays, "cleanup.policy", "delete"),
        ];
        for (purpose, key, value) in cases {
            let mut settings = settings(purpose, 3, &config());
            settings.insert(key.to_owned(), value.to_owned());
            let findings = judge(purpose, &topic(3), &settings, &config());
            let finding = findings.iter().find(|finding| finding.property == key);
            let finding = finding.expect("it is judged");
            assert_eq!(finding.verdict, Verdict::Wrong, "{finding:?}");
            assert!(finding.fix.contains(key), "{finding:?}");
        }
    }

    #[test]
    fn a_development_cluster_is_risky_and_not_wrong() {
        let settings = settings(Purpose::Input, 1, &config());
        let findings = judge(Purpose::Input, &topic(1), &settings, &config());
        assert_eq!(verdict_of(&findings, "replication factor"), Verdict::Risky);
        assert_eq!(verdict_of(&findings, "min.insync.replicas"), Verdict::Risky);
        assert_eq!(super::super::verdict::worst(&findings), Verdict::Risky);
    }

    #[test]
    fn missing_replicas_are_found() {
        let settings = settings(Purpose::Input, 3, &config());
        for (in_sync, leaderless, expected) in [
            (2, 0, Verdict::Risky),
            (1, 0, Verdict::Wrong),
            (3, 1, Verdict::Wrong),
        ] {
            let topic = Topic {
                in_sync,
                leaderless,
                ..topic(3)
            };
            let findings = judge(Purpose::Input, &topic, &settings, &config());
            assert_eq!(verdict_of(&findings, "in-sync replicas"), expected);
        }
    }
}
