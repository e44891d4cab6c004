//! The one command that plays a failure again.

/// The command that plays a seed of a scenario again, from the project's root.
#[must_use]
pub fn command(scenario: &str, seed: u64) -> String {
    format!("cargo run --release -- play {scenario} --seed {seed}")
}

/// The command that plays a story, chosen by these arguments, with crashes at these points again, from the project's root.
#[must_use]
pub fn crash_command(arguments: &str, points: &str) -> String {
    format!("cargo run --release -- crash-points {arguments} --play \"{points}\"")
}
