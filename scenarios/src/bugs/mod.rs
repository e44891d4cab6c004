//! Planted bugs, and how many seeds it takes until they are found.
//!
//! Comes in: bugs. Some are promises that the world breaks ([`Sabotage`]); others are patches of the
//! processor, in `properties/bugs`, which are applied to a copy of the sources and built there. Goes out: a
//! [`Card`], which tells for each bug how the storms find it.
//! Never here: a seam in the processor that ships, or anything that leads a storm to a bug.
//!
//! All patches go into one copy, where each asks a switch whether it is the one; so there is one build, and
//! a process has the bug that its environment names.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `catalogue` | the bugs |
//! | `copy` | the copy of the sources, patched and built |
//! | `hunt` | storms, until one is accused |
//! | `card` | what came of it |

mod card;
mod catalogue;
mod copy;
mod hunt;

pub use card::{Card, Row, Score};
pub use catalogue::{Made, PlantedBug, catalogue};
pub use copy::{Copied, SWITCH};
pub use hunt::{Found, Hunt};

use sim::sabotage::Sabotage;

/// What is wrong with the bugs themselves, or with their copy.
#[derive(Debug, thiserror::Error)]
pub enum BugError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A patch is not written as patches are.
    #[error("{path}: {what}")]
    Patch {
        /// Its file.
        path: String,
        /// What is wrong, and how to mend it.
        what: String,
    },
    /// The copy does not build.
    #[error("the patched copy in {0} does not build: see above")]
    Build(String),
}

/// A bug's promise, if it is one of the world's.
#[must_use]
pub fn promise_of(bug: &PlantedBug) -> Option<Sabotage> {
    match bug.made {
        Made::Promise(promise) => Some(promise),
        Made::Patch(_) => None,
    }
}

/// An empty folder of a test's own.
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "tests in several processes must not share folders"
)]
pub(crate) fn folder_of_test(name: &str) -> std::path::PathBuf {
    let name = format!("tickproof-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}
