//! What a process has for itself: a disk, a clock, and somebody who writes down its events.

use super::World;
use bytes::Bytes;
use processor::io::{Clock, PieceKey, StateBatch, StateError, StateStore};
use processor::state::MemoryStateStore;
use processor::units::PartitionId;
use processor::worker::{Observer, WorkerEvent};
use std::cell::Cell;
use std::time::Duration;

/// A memory store whose disk may fail. It dies with its process.
pub struct FakeState {
    world: World,
    memory: MemoryStateStore,
}

impl FakeState {
    pub fn new(world: &World) -> FakeState {
        FakeState {
            world: world.clone(),
            memory: MemoryStateStore::default(),
        }
    }

    fn disk(&self, call: &str) -> Result<(), StateError> {
        match self.world.lock().call_fails(call) {
            Some(_) => Err(StateError("No space left on device".into())),
            None => Ok(()),
        }
    }
}

impl StateStore for FakeState {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        self.disk("state.apply")?;
        self.memory.apply(partition, batch)
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        self.disk("state.get")?;
        self.memory.get(partition, key)
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.disk("state.drop_partition")?;
        self.memory.drop_partition(partition)
    }
}

/// The world's time. As a real clock, it never tells the same moment twice.
pub struct FakeClock {
    world: World,
    reads: Cell<u64>,
}

impl FakeClock {
    pub fn new(world: &World) -> FakeClock {
        FakeClock {
            world: world.clone(),
            reads: Cell::new(0),
        }
    }
}

impl Clock for FakeClock {
    fn unix_ms(&self) -> i64 {
        self.world.lock().unix_ms()
    }

    fn monotonic(&self) -> Duration {
        self.reads.set(self.reads.get() + 1);
        let since_ms = self.world.lock().now_ms;
        Duration::from_millis(since_ms) + Duration::from_nanos(self.reads.get())
    }

    async fn sleep(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).expect("sleeps are short");
        {
            let mut inner = self.world.lock();
            if !inner.is_dead {
                inner.journal.push(format!("sleep {ms}"));
                inner.now_ms += ms;
                return;
            }
        }
        std::future::pending().await
    }
}

/// Writes events into the world's journal.
pub struct Journalist(World);

impl Journalist {
    pub fn new(world: &World) -> Journalist {
        Journalist(world.clone())
    }
}

impl Observer for Journalist {
    fn observe(&self, event: &WorkerEvent<'_>) {
        // They come with every poll and commit, and say nothing that others do not.
        if matches!(event, WorkerEvent::Polled | WorkerEvent::Progress { .. }) {
            return;
        }
        let line = format!("event {event:?}");
        self.0.lock().journal.push(line);
    }
}
