//! The clock of a process: virtual time, as its machine tells it.

use crate::fabric::Fabric;
use crate::fabric::actor::{HostId, Micros};
use processor::io::Clock;
use std::time::Duration;

/// The clock of one machine.
#[derive(Clone)]
pub struct SimClock {
    fabric: Fabric,
    host: HostId,
    unix_ms_at_zero: i64,
}

impl SimClock {
    /// `unix_ms_at_zero`: Unix milliseconds at virtual time 0.
    #[must_use]
    pub fn new(fabric: Fabric, host: HostId, unix_ms_at_zero: i64) -> SimClock {
        SimClock {
            fabric,
            host,
            unix_ms_at_zero,
        }
    }
}

impl Clock for SimClock {
    fn unix_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.fabric.now().as_ms()).expect("worlds are short");
        self.unix_ms_at_zero + elapsed_ms + self.fabric.clock_ahead_ms(self.host)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.fabric.now().0)
    }

    async fn sleep(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.fabric.sleep(self.host, Micros(micros)).await;
    }
}
