//! Whether the workers of a process are well.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It has not polled yet.
    Starting,
    /// It polls.
    Running,
    /// It was asked to stop, or has stopped.
    Stopped,
    /// An error has ended it.
    Failed,
}

#[derive(Debug)]
struct WorkerHealth {
    ordinal: u32,
    state: AtomicU8,
    /// Milliseconds from the start of the process to the newest poll.
    polled_ms: AtomicU64,
}

/// Health of all workers of a process. Shared between them and the HTTP server.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    patience: Duration,
    workers: Vec<WorkerHealth>,
}

impl Health {
    /// `count` workers from `ordinal` on; one that has not polled for `patience` is not ready.
    #[must_use]
    pub fn new(ordinal: u32, count: u32, patience: Duration) -> Health {
        let worker = |ordinal| WorkerHealth {
            ordinal,
            state: AtomicU8::new(WorkerState::Starting as u8),
            polled_ms: AtomicU64::new(0),
        };
        Health {
            started: Instant::now(),
            patience,
            workers: (ordinal..ordinal + count).map(worker).collect(),
        }
    }

    /// The worker has polled.
    pub fn polled(&self, ordinal: u32) {
        let Some(worker) = self.worker(ordinal) else {
            return;
        };
        worker.polled_ms.store(self.now_ms(), Ordering::Relaxed);
        let (starting, running) = (WorkerState::Starting as u8, WorkerState::Running as u8);
        let order = Ordering::Relaxed;
        let _ = worker
            .state
            .compare_exchange(starting, running, order, order);
    }

    /// The worker does something else now.
    pub fn set(&self, ordinal: u32, state: WorkerState) {
        if let Some(worker) = self.worker(ordinal) {
            worker.state.store(state as u8, Ordering::Relaxed);
        }
    }

    /// The worker was asked to stop; one that runs does so, and a failure stays a failure.
    pub fn stopping(&self, ordinal: u32) {
        if let Some(worker) = self.worker(ordinal) {
            let (running, stopped) = (WorkerState::Running as u8, WorkerState::Stopped as u8);
            let order = Ordering::Relaxed;
            // A failure in between is not overwritten.
            let _ = worker
                .state
                .compare_exchange(running, stopped, order, order);
        }
    }

    /// True until the worker has polled, stopped or failed.
    #[must_use]
    pub fn is_starting(&self, ordinal: u32) -> bool {
        let starting = WorkerState::Starting as u8;
        self.worker(ordinal)
            .is_some_and(|worker| worker.state.load(Ordering::Relaxed) == starting)
    }

    /// What keeps the process from being ready, a line a worker; empty when it is.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let now = self.now_ms();
        let workers = self.workers.iter();
        workers
            .filter_map(|worker| {
                let obstacle = self.obstacle(worker, now)?;
                Some(format!("worker {}: {obstacle}", worker.ordinal))
            })
            .collect()
    }

    fn obstacle(&self, worker: &WorkerHealth, now_ms: u64) -> Option<String> {
        let state = worker.state.load(Ordering::Relaxed);
        if state == WorkerState::Running as u8 {
            let silent_ms = now_ms.saturating_sub(worker.polled_ms.load(Ordering::Relaxed));
            let is_late = Duration::from_millis(silent_ms) > self.patience;
            return is_late.then(|| format!("has not polled for {silent_ms} ms"));
        }
        let what = if state == WorkerState::Starting as u8 {
            "is starting"
        } else if state == WorkerState::Failed as u8 {
            "has failed"
        } else {
            "is stopping"
        };
        Some(what.to_owned())
    }

    fn worker(&self, ordinal: u32) -> Option<&WorkerHealth> {
        self.workers.iter().find(|worker| worker.ordinal == ordinal)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_worker_has_polled_and_none_has_failed() {
        let health = Health::new(3, 2, Duration::from_secs(3600));
        assert_eq!(
            health.obstacles(),
            ["worker 3: is starting", "worker 4: is starting"]
        );
        health.polled(3);
        health.polled(4);
        assert_eq!(health.obstacles(), [""; 0]);
        health.set(4, WorkerState::Failed);
        health.polled(4);
        assert_eq!(health.obstacles(), ["worker 4: has failed"]);
        health.stopping(3);
        health.stopping(4);
        assert_eq!(
            health.obstacles(),
            ["worker 3: is stopping", "worker 4: has failed"]
        );
    }

    #[test]
    fn a_worker_starts_until_it_polls() {
        let health = Health::new(0, 1, Duration::ZERO);
        health.stopping(0);
        assert!(health.is_starting(0), "nobody has told it yet");
        health.polled(0);
        assert!(!health.is_starting(0));
    }

    #[test]
    fn a_worker_that_does_not_poll_is_not_ready() {
        let health = Health::new(0, 1, Duration::ZERO);
        health.polled(0);
        while health.now_ms() <= health.workers[0].polled_ms.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        let obstacles = health.obstacles();
        assert!(obstacles[0].contains("has not polled for"), "{obstacles:?}");
    }
}
