//! What the world does about processes that were killed at one of their calls.

use super::{Control, World};
use crate::plan::Machine;

impl World {
    /// The end of processes that were killed at one of their calls. What was told to stop is not started
    /// again.
    pub(super) fn bury_tapped(&mut self) {
        let Some((recorder, down_ms)) = &self.tap else {
            return;
        };
        let (doomed, down_ms) = (recorder.look(), *down_ms);
        for (worker, kill) in doomed {
            let running = self.workers[worker as usize].running.as_ref();
            let was_stopped = running.is_some_and(|running| running.stop.is_stopped());
            self.kill_worker(worker);
            let host = self.host(Machine::Worker(worker));
            self.fabric.note(host, "worker-killed", &kill.to_string());
            if !was_stopped {
                let at = self.fabric.now().plus_ms(down_ms);
                let number = Control::WorkerStarts(worker).number();
                self.fabric.schedule_control(at, number);
            }
        }
    }
}
