//! Plans as files: what `tickproof plan` prints, `tickproof play` reads and `regressions/` keeps.

use sim::plan::{self, Plan};
use std::path::{Path, PathBuf};

/// What can be wrong with a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("plan file {path}: {source}; give the path of a file that `tickproof plan` printed", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file is no plan.
    #[error("plan file {path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the line.
        reason: String,
    },
    /// The plan cannot be played.
    #[error(transparent)]
    Unplayable(#[from] plan::PlanError),
    /// The plan has no TOML form.
    #[error("the plan cannot be printed: {0}")]
    Unprintable(String),
}

/// Reads and checks a plan file.
///
/// # Errors
/// When it is unreadable, no plan, or not playable.
pub fn read(path: &Path) -> Result<Plan, PlanError> {
    let text = std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let plan: Plan = toml::from_str(&text).map_err(|e| PlanError::Malformed {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    plan.check()?;
    Ok(plan)
}

/// The plan as TOML.
///
/// # Errors
/// When a number does not fit TOML's 64 signed bits.
pub fn print(plan: &Plan) -> Result<String, PlanError> {
    toml::to_string(plan).map_err(|e| PlanError::Unprintable(e.to_string()))
}

/// As [`print()`], without what a plan need not say: for people.
///
/// # Errors
/// As [`print()`].
pub fn print_briefly(plan: &Plan) -> Result<String, PlanError> {
    let text = print(plan)?;
    let mut lines: Vec<&str> = text.lines().collect();
    let mut place = lines.len();
    while place > 0 {
        place -= 1;
        let line = lines.remove(place);
        let needed =
            line.is_empty() || toml::from_str(&lines.join("\n")).ok().as_ref() != Some(plan);
        if needed {
            lines.insert(place, line);
        }
    }
    lines.dedup(); // empty lines where sections went
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::{print, print_briefly};
    use crate::catalog;

    #[test]
    fn a_printed_plan_reads_back_as_the_same_plan() {
        for scenario in catalog::all().expect("sound") {
            for seed in 0..5 {
                let plan = scenario.resolve(seed).expect("resolves");
                let text = print(&plan).expect("prints");
                let back = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(plan, back);
                let text = print_briefly(&plan).expect("prints");
                let back = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(plan, back);
            }
        }
    }

    #[test]
    fn a_wrong_value_in_the_processors_part_is_refused_by_its_key() {
        let mut plan = catalog::find("storm")
            .and_then(|scenario| scenario.resolve(0))
            .expect("resolves");
        let table = "[commit]\ninterval = 5".parse().expect("TOML");
        plan.processor = table;
        let error = plan.check().expect_err("no such key").to_string();
        assert!(error.contains("commit.interval"), "{error}");
    }

    #[test]
    fn a_fault_on_a_machine_that_is_not_there_is_refused_by_name() {
        let mut plan = catalog::find("job-crash")
            .and_then(|scenario| scenario.resolve(0))
            .expect("resolves");
        plan.faults[0].kind = sim::plan::FaultKind::WorkerCrash {
            worker: 9,
            down_ms: 1,
        };
        let error = plan.check().expect_err("no worker 9").to_string();
        assert!(error.contains('9') && error.contains("allowed"), "{error}");
    }
}
