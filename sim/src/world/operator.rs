//! What people (and retention) do to topics, groups and processes.

use super::{Supervised, World, topics};
use crate::fabric::Handle;
use crate::kafka::broker::Broker;
use crate::kafka::protocol::{Offset, OffsetCommit, PartitionId, Request, TopicPartition};
use crate::plan::{Machine, Until};
use processor::config::ProcessorConfig;
use processor::worker::CommitRecord;
use std::sync::Arc;

impl World {
    pub(super) fn broker(&self, broker: u32) -> Handle<Broker> {
        self.brokers[broker as usize - 1].clone()
    }

    /// Asks every broker; the one that it concerns does it.
    fn operate(&self, request: &Request) {
        for broker in &self.brokers {
            broker.with(|b, now, fx| b.operate(request.clone(), now, fx));
        }
    }

    pub(super) fn delete_records(&mut self, partition: u32, until: Until) -> bool {
        let tp = input(partition);
        let committed = topics::committed(&self.brokers, &self.config.kafka.group_id, tp);
        let before = match until {
            Until::End => Some(Offset(-1)),
            Until::Committed => committed.map(|commit| commit.offset),
            Until::Snapshot => committed
                .and_then(|commit| CommitRecord::decode(&commit.metadata).ok())
                .map(|record| Offset(record.snapshot_at.0)),
        };
        let Some(before) = before else { return false };
        let start = || topics::log_start(&self.brokers, tp);
        let was = start();
        self.operate(&Request::DeleteRecords { tp, before });
        let hit = start() > was;
        self.note_machine(Machine::Controller, hit, "records-deleted");
        hit
    }

    pub(super) fn add_partitions(&mut self, count: u32) -> bool {
        for broker in &self.brokers {
            broker.with(|b, _, _| b.show_partitions(topics::INPUT, count));
        }
        self.note_machine(Machine::Controller, true, "partitions-added");
        true
    }

    /// Its history up to now is what the checkers see of it.
    pub(super) fn recreate_topic(&mut self) -> bool {
        if self.before_recreation.is_none() {
            let partitions = self.plan.topology.input_partitions;
            self.before_recreation = Some(topics::input(&self.brokers, partitions));
        }
        for broker in &self.brokers {
            broker.with(|b, now, fx| {
                b.recreate(topics::INPUT, "id-of-a-new-topic".into(), now, fx);
            });
        }
        self.note_machine(Machine::Controller, true, "topic-recreated");
        true
    }

    pub(super) fn expire_offsets(&mut self) -> bool {
        let group: Arc<str> = self.config.kafka.group_id.as_str().into();
        let hit = self.is_group_empty();
        self.operate(&Request::DeleteGroup { group });
        self.note_machine(Machine::Controller, hit, "offsets-expired");
        hit
    }

    pub(super) fn reset_offset(&mut self, partition: u32, offset: i64) -> bool {
        let hit = self.is_group_empty();
        let commit = OffsetCommit {
            tp: input(partition),
            offset: Offset(offset),
            metadata: "".into(),
        };
        self.operate(&Request::OffsetCommit {
            group: self.config.kafka.group_id.as_str().into(),
            generation: -1,
            member_id: "".into(),
            offsets: vec![commit],
        });
        self.note_machine(Machine::Controller, hit, "offset-reset");
        hit
    }

    fn is_group_empty(&self) -> bool {
        let group = &self.config.kafka.group_id;
        let mut brokers = self.brokers.iter();
        brokers.any(|broker| broker.with(|b, _, _| b.coordinates_empty(group)))
    }

    pub(super) fn usual_config(&self, worker: u32) -> ProcessorConfig {
        ProcessorConfig::clone(&self.worker_configs[worker as usize])
    }

    /// Kills a worker process and starts another in its place: with an unusual configuration, or the
    /// usual one. True if it was there.
    pub(super) fn replace_worker(
        &mut self,
        worker: u32,
        unusual: Option<ProcessorConfig>,
        kind: &'static str,
    ) -> bool {
        let was_there = self.kill_worker(worker);
        let of = &mut self.workers[worker as usize];
        let hit = was_there || of.unusual.is_some();
        of.unusual = unusual.map(Arc::new);
        of.retired = false;
        if hit {
            self.note_machine(Machine::Worker(worker), true, kind);
            self.start_worker(worker);
        }
        hit
    }
}

impl Supervised {
    /// A refusal of a process that is not as it should be is what should happen.
    pub(super) fn may_refuse(&self) -> bool {
        self.unusual.is_some()
    }
}

fn input(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topics::INPUT,
        partition: PartitionId(i32::try_from(partition).expect("plans are checked")),
    }
}
