//! What a behaviour did last, for people who want to know where it failed or hangs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Older ones are forgotten.
const KEPT: usize = 12;

/// The last steps of one behaviour; clones are the same notes.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<VecDeque<(Instant, String)>>>);

impl Notes {
    /// Notes that a step begins.
    #[allow(
        clippy::disallowed_methods,
        reason = "tells people when a step began on a genuine cluster"
    )]
    pub fn step(&self, what: impl Into<String>) {
        let mut steps = self.0.lock().expect("nobody panics with it");
        if steps.len() == KEPT {
            steps.pop_front();
        }
        steps.push_back((Instant::now(), what.into()));
    }
}

impl fmt::Display for Notes {
    #[allow(
        clippy::disallowed_methods,
        reason = "tells people how long a step on a genuine cluster has taken"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.0.lock().expect("nobody panics with it");
        for (begun, what) in steps.iter() {
            let ago = begun.elapsed().as_secs_f32();
            writeln!(f, "    {ago:6.1} s ago: {what}")?;
        }
        Ok(())
    }
}
