//! Servers on this machine that tests and trials run against: they are started, hurt and ended here.
//!
//! Comes in: the workspace's root. Goes out: a real Kafka cluster ([`kafka`]), a real S3 server ([`s3`]),
//! their processes found again by anybody ([`process`]), and the processors on them under faults
//! ([`chaos`]). Never here: what a processor does.

pub mod chaos;
mod files;
pub mod kafka;
pub mod ports;
pub mod process;
pub mod s3;

use std::io::Write;
use std::path::PathBuf;

/// Prints a line as `println!` does, but nothing when nobody reads any more (`… | head -1`).
macro_rules! say {
    ($($word:tt)*) => {
        $crate::write_line(format_args!($($word)*))
    };
}
use say;

fn write_line(line: std::fmt::Arguments<'_>) {
    // A reader that is gone misses nothing.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
