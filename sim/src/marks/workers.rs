//! What marks remember of each worker: where it stands with its partitions, its transaction, its
//! snapshots.

use super::text::{numbers, partition, partitions};
use super::{Outputs, Reached};
use std::collections::{BTreeMap, BTreeSet};

/// Where a worker's transaction stands, as its coordinator has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Step {
    #[default]
    None,
    Ongoing,
    Decided {
        commit: bool,
    },
}

/// What a worker's process finds on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum DiskFound {
    #[default]
    First,
    New,
    Old,
}

/// A partition that was assigned and is not recovered yet.
#[derive(Debug, Default)]
struct Taking {
    /// The replay has begun: its first and its last offset.
    replay: Option<(i64, i64)>,
    postponed: bool,
    set_back: bool,
    /// Its opening is under way.
    opens: bool,
}

/// What is forgotten with the process.
#[derive(Debug, Default)]
struct Process {
    disk: DiskFound,
    stopping: bool,
    /// Somebody else took partitions over while it stood still.
    outdone: bool,
    /// It goes on, and has not been told.
    is_zombie: bool,
    /// Its transaction, if this process began it.
    transaction: Step,
    aborts_in_a_row: u64,
    taking: BTreeMap<i32, Taking>,
    /// Whether it recovered them (else it began them).
    owned: BTreeMap<i32, bool>,
    /// Owned ones that are being taken back.
    revoked: BTreeSet<i32>,
    /// All of the last rebalance that took something.
    taken: BTreeSet<i32>,
    /// Those with a snapshot that no commit has named.
    unnamed: BTreeSet<i32>,
    /// Those with a forced watermark that no snapshot has.
    forced: BTreeSet<i32>,
}

#[derive(Debug, Default)]
struct Worker {
    process: Process,
    stands_still: bool,
    clock_is_wrong: bool,
    /// Its last process died while it took partitions over.
    died_in_takeover: bool,
}

/// What was done to a partition, by whomever.
#[derive(Debug, Default)]
struct Partition {
    begun: bool,
    was_opening: bool,
    snapshot_at: Option<i64>,
    snapshot_makers: BTreeSet<u32>,
    /// A snapshot has a watermark that was forced.
    forced: bool,
    /// Somebody died while he took it over.
    recovery_failed: bool,
}

/// All workers and their partitions.
#[derive(Debug, Default)]
pub(super) struct Workers {
    workers: BTreeMap<u32, Worker>,
    partitions: BTreeMap<i32, Partition>,
}

impl Workers {
    pub(super) fn line(&mut self, number: u32, kind: &str, text: &str, reached: &mut Reached) {
        match kind {
            "recovering" => self.recovering(number, text, reached),
            "recovered" => self.recovered(number, text, reached),
            "opening" => self.opening(number, text, reached),
            "fresh" => self.fresh(number, text, reached),
            "snapshotted" => self.snapshotted(number, text),
            "garbage-collected" => self.collected(number, text, reached),
            "worker-crashed"
            | "worker-failed"
            | "worker-became-a-twin"
            | "worker-misconfigured"
            | "worker-put-right" => self.died(number, reached),
            _ => {
                let worker = self.workers.entry(number).or_default();
                worker.line(kind, text, reached);
            }
        }
    }

    fn recovering(&mut self, number: u32, text: &str, reached: &mut Reached) {
        let found: Vec<i64> = numbers(text).take(3).collect();
        let &[partition, from, to] = &found[..] else {
            return;
        };
        let partition = i32::try_from(partition).unwrap_or_default();
        let known = self.partitions.entry(partition).or_default();
        known.begun = true;
        match known.snapshot_at {
            None => reached.add("recovered-before-the-first-snapshot"),
            Some(at) => reached.add_if(from < at, "restored-behind-the-newest-snapshot"),
        }
        self.take_over(number, partition, reached);
        let worker = self.workers.entry(number).or_default();
        let taking = worker.process.taking.entry(partition).or_default();
        taking.replay = Some((from, to));
    }

    /// Whoever had it until now has it no longer.
    fn take_over(&mut self, by: u32, partition: i32, reached: &mut Reached) {
        for (number, worker) in &mut self.workers {
            if *number == by || !worker.process.owned.contains_key(&partition) {
                continue;
            }
            if worker.stands_still {
                worker.process.outdone = true;
            } else {
                reached.add("taken-over-from-an-owner-that-runs");
            }
        }
    }

    fn recovered(&mut self, number: u32, text: &str, reached: &mut Reached) {
        let Some(partition) = partition(text) else {
            return;
        };
        let worker = self.workers.entry(number).or_default();
        worker.died_in_takeover = false;
        let process = &mut worker.process;
        let taking = process.taking.remove(&partition).unwrap_or_default();
        process.owned.insert(partition, true);
        let replayed = taking.replay.is_some_and(|(from, to)| from < to);
        reached.add(match replayed {
            true => "recovered-with-replay",
            false => "recovered-without-replay",
        });
        reached.add_if(taking.postponed, "recovered-after-a-postponement");
        reached.add_if(taking.set_back, "recovered-after-a-set-back");
        reached.add_if(process.disk == DiskFound::New, "recovered-on-a-new-disk");
        reached.add_if(process.disk == DiskFound::Old, "recovered-over-an-old-disk");
        let known = self.partitions.entry(partition).or_default();
        reached.add_if(known.forced, "recovered-behind-a-forced-watermark");
        let failed_before = std::mem::take(&mut known.recovery_failed);
        reached.add_if(failed_before, "recovered-after-a-failed-recovery");
    }

    fn opening(&mut self, number: u32, text: &str, reached: &mut Reached) {
        let Some(partition) = partition(text) else {
            return;
        };
        let known = self.partitions.entry(partition).or_default();
        let again = std::mem::replace(&mut known.was_opening, true);
        reached.add_if(again, "opened-again");
        let process = &mut self.workers.entry(number).or_default().process;
        process.taking.entry(partition).or_default().opens = true;
    }

    fn fresh(&mut self, number: u32, text: &str, reached: &mut Reached) {
        let Some(partition) = partition(text) else {
            return;
        };
        self.take_over(number, partition, reached);
        self.partitions.entry(partition).or_default().begun = true;
        let process = &mut self.workers.entry(number).or_default().process;
        process.taking.remove(&partition);
        process.owned.insert(partition, false);
    }

    fn snapshotted(&mut self, number: u32, text: &str) {
        let found: Vec<i64> = numbers(text).take(2).collect();
        let &[partition, at] = &found[..] else {
            return;
        };
        let partition = i32::try_from(partition).unwrap_or_default();
        let process = &mut self.workers.entry(number).or_default().process;
        process.unnamed.insert(partition);
        let known = self.partitions.entry(partition).or_default();
        known.snapshot_at = known.snapshot_at.max(Some(at));
        known.snapshot_makers.insert(number);
        known.forced |= process.forced.remove(&partition);
    }

    fn collected(&mut self, number: u32, text: &str, reached: &mut Reached) {
        let known = partition(text).and_then(|partition| self.partitions.get(&partition));
        let makers = known.map(|known| &known.snapshot_makers);
        let others = makers.is_some_and(|makers| makers.iter().any(|maker| *maker != number));
        reached.add_if(others, "collected-after-a-former-owner");
    }

    fn died(&mut self, number: u32, reached: &mut Reached) {
        let worker = self.workers.entry(number).or_default();
        let process = std::mem::take(&mut worker.process);
        worker.stands_still = false;
        match process.transaction {
            Step::Ongoing => reached.add("died-in-an-open-transaction"),
            Step::Decided { commit: true } => reached.add("died-between-decision-and-markers"),
            Step::Decided { commit: false } | Step::None => {}
        }
        if !process.taking.is_empty() {
            reached.add("died-in-takeover");
            let again = std::mem::replace(&mut worker.died_in_takeover, true);
            reached.add_if(again, "died-in-takeover-again");
        }
        let dies_in = |what: fn(&Taking) -> bool| process.taking.values().any(what);
        reached.add_if(dies_in(|t| t.replay.is_some()), "died-in-replay");
        reached.add_if(dies_in(|t| t.opens), "died-in-an-opening");
        for partition in process.taking.keys() {
            let known = self.partitions.entry(*partition).or_default();
            known.recovery_failed = true;
        }
        reached.add_if(
            !process.unnamed.is_empty(),
            "died-before-its-snapshot-was-named",
        );
        reached.add_if(
            !process.forced.is_empty(),
            "died-before-its-forced-watermark-was-kept",
        );
        reached.add_if(
            process.aborts_in_a_row > 0,
            "died-with-outputs-of-an-aborted-transaction",
        );
    }

    /// The coordinator has written a transition of a worker's transaction.
    pub(super) fn transaction(&mut self, number: u32, step: Step) {
        let process = &mut self.workers.entry(number).or_default().process;
        // What a former process has begun is ended by its successor, or by time.
        if step == Step::Ongoing || process.transaction != Step::None {
            process.transaction = step;
        }
    }

    /// The coordinator has timed a worker's transaction out.
    pub(super) fn timed_out(&mut self, number: u32, reached: &mut Reached) {
        let worker = self.workers.entry(number).or_default();
        reached.add_if(worker.stands_still, "zombie-transaction-timed-out");
    }

    fn any(&self, holds: impl Fn(&Process) -> bool) -> bool {
        let mut running = self.workers.values().filter(|worker| !worker.stands_still);
        running.any(|worker| holds(&worker.process))
    }

    /// The group has a new generation.
    pub(super) fn rebalanced(&mut self, reached: &mut Reached) {
        let open = self.any(|process| process.transaction == Step::Ongoing);
        reached.add_if(open, "rebalanced-in-an-open-transaction");
        let replays = |process: &Process| process.taking.values().any(|t| t.replay.is_some());
        reached.add_if(self.any(replays), "rebalanced-in-a-replay");
    }

    /// The group has a new coordinator.
    pub(super) fn coordinator_moved(&mut self, reached: &mut Reached) {
        let takes = self.any(|process| !process.taking.is_empty());
        reached.add_if(takes, "group-coordinator-moved-in-takeover");
        let transacts = self.any(|process| process.transaction != Step::None);
        reached.add_if(transacts, "group-coordinator-moved-in-a-transaction");
    }

    pub(super) fn outputs(
        &mut self,
        number: u32,
        partition: i32,
        outputs: Outputs,
        reached: &mut Reached,
    ) {
        let forced = self.partitions.get(&partition).is_some_and(|p| p.forced);
        let worker = self.workers.get(&number);
        let recovered = worker.and_then(|worker| worker.process.owned.get(&partition));
        let recovered = recovered.copied().unwrap_or(false);
        reached.add_if(outputs.corrects && recovered, "corrected-after-recovery");
        reached.add_if(
            outputs.corrects && forced,
            "corrected-after-a-forced-watermark",
        );
        reached.add_if(
            outputs.too_late && forced,
            "too-late-after-a-forced-watermark",
        );
    }

    pub(super) fn object_deleted(&mut self, number: u32, partition: i32, reached: &mut Reached) {
        let mut others = self.workers.iter().filter(|(other, _)| **other != number);
        let takes = others.any(|(_, other)| other.process.taking.contains_key(&partition));
        reached.add_if(takes, "collected-beside-a-restore");
    }
}

impl Worker {
    fn line(&mut self, kind: &str, text: &str, reached: &mut Reached) {
        match kind {
            "paused" => self.stands_still = true,
            "resumed" => {
                self.stands_still = false;
                self.process.is_zombie = std::mem::take(&mut self.process.outdone);
                reached.add_if(self.process.is_zombie, "zombie-woke");
            }
            "clock-jumped" => {
                self.clock_is_wrong = true;
                reached.add("worker-clock-jumped");
            }
            "clock-righted" => self.clock_is_wrong = false,
            "worker-left" => self.process = Process::default(),
            "forced-watermark" => {
                reached.add_if(self.clock_is_wrong, "forced-by-a-wrong-clock");
                self.process.forced.extend(partition(text));
            }
            _ => self.process.line(kind, text, reached),
        }
    }
}

impl Process {
    fn line(&mut self, kind: &str, text: &str, reached: &mut Reached) {
        match kind {
            "disk-new" => self.disk = DiskFound::New,
            "disk-old" => self.disk = DiskFound::Old,
            "assigned" => {
                self.taken.clear();
                let assigned = partitions(text).map(|p| (p, Taking::default()));
                self.taking.extend(assigned);
            }
            "revoked" => {
                reached.add_if(self.stopping, "revoked-while-stopping");
                self.take(text, "revoked-in-takeover", reached);
                let owned = self.taken.iter().filter(|p| self.owned.contains_key(p));
                self.revoked = owned.copied().collect();
            }
            "lost" => {
                self.take(text, "lost-in-takeover", reached);
                self.is_zombie = false;
            }
            "released" => self.release(partition(text)),
            "postponed" => self.postponed(partition(text), reached),
            "set-back" => {
                if let Some(partition) = partition(text) {
                    self.owned.remove(&partition);
                    let taking = self.taking.entry(partition).or_default();
                    (taking.set_back, taking.replay) = (true, None);
                }
                self.revoke_fails(reached);
            }
            "committed" => self.committed(reached),
            "aborted" => {
                self.aborts_in_a_row += 1;
                reached.add_if(self.aborts_in_a_row == 2, "aborted-twice-in-a-row");
                self.refused(reached);
                self.revoke_fails(reached);
            }
            "resolved-not-committed" => self.revoke_fails(reached),
            "producer-fenced-seen" => self.refused(reached),
            "snapshot-failed" => {
                let forced = partition(text).is_some_and(|p| self.forced.contains(&p));
                reached.add_if(forced, "forced-and-no-snapshot");
            }
            "worker-stopping" => {
                self.stopping = true;
                reached.add_if(!self.taking.is_empty(), "stopped-in-takeover");
            }
            _ => {}
        }
    }

    /// A rebalance takes partitions.
    fn take(&mut self, text: &str, in_takeover: &'static str, reached: &mut Reached) {
        self.taken = partitions(text).collect();
        for partition in &self.taken {
            let Some(taking) = self.taking.get(partition) else {
                continue;
            };
            if taking.replay.is_some() {
                reached.add("taken-away-in-a-replay");
            } else {
                reached.add(in_takeover);
                self.taking.remove(partition);
            }
        }
    }

    fn release(&mut self, partition: Option<i32>) {
        if let Some(partition) = partition {
            self.owned.remove(&partition);
            self.taking.remove(&partition);
            self.revoked.remove(&partition);
            self.unnamed.remove(&partition);
            self.forced.remove(&partition);
        }
    }

    fn postponed(&mut self, partition: Option<i32>, reached: &mut Reached) {
        let Some(partition) = partition else {
            return;
        };
        reached.add_if(
            self.taken.contains(&partition),
            "restore-given-up-for-a-rebalance",
        );
        if let Some(taking) = self.taking.get_mut(&partition) {
            taking.postponed = true;
            let opened = std::mem::take(&mut taking.opens);
            reached.add_if(opened, "opening-put-off");
        }
    }

    fn committed(&mut self, reached: &mut Reached) {
        reached.add_if(self.aborts_in_a_row > 0, "committed-after-an-abort");
        reached.add_if(!self.revoked.is_empty(), "committed-on-revoke");
        self.aborts_in_a_row = 0;
        self.unnamed.clear();
    }

    /// A transaction of a member that was replaced.
    fn refused(&mut self, reached: &mut Reached) {
        let was_zombie = std::mem::take(&mut self.is_zombie);
        reached.add_if(was_zombie, "zombie-refused");
    }

    /// What is being taken back was not committed before.
    fn revoke_fails(&mut self, reached: &mut Reached) {
        reached.add_if(!self.revoked.is_empty(), "revoked-without-a-commit");
        self.revoked.clear();
    }
}
