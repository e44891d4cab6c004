//! The one command that plays a failure again.

/// The command that plays a seed of a scenario again, from the project's root.
#[must_use]
pub fn command(scenario: &str, seed: u64) -> String {
    format!("cargo run --release -- play {scenario} --seed {seed}")
}
