//! What a tapped process tells of itself.

use super::ProcessTap;
use processor::worker::{Observer, WorkerEvent};

/// Passes events on while the process lives.
pub struct TappedObserver<O> {
    inner: O,
    tap: ProcessTap,
}

impl<O> TappedObserver<O> {
    /// Wraps `inner`.
    pub fn new(inner: O, tap: ProcessTap) -> Self {
        TappedObserver { inner, tap }
    }
}

impl<O: Observer> Observer for TappedObserver<O> {
    fn observe(&self, event: &WorkerEvent<'_>) {
        if self.tap.lives() {
            self.tap.told(event);
            self.inner.observe(event);
        }
    }
}
