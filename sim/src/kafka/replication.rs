//! Replication by pull: a follower's fetchers, a leader's fetch sessions (KIP-227: only what changed
//! is repeated), truncation by diverging epochs (KIP-595), and the leader's care of its ISR.

use super::broker::Broker;
use super::coordinator::{Asker, Sent};
use super::internal::{
    InternalRequest, InternalResponse, IsrChange, IsrResult, ReplicaFetchPartition,
    ReplicaFetchResult, ReplicaFetched,
};
use super::protocol::{BrokerId, LeaderEpoch, Message, Offset, Request, Response};
use super::replica::{Replica, Role};
use crate::fabric::actor::{Effects, Micros};
use std::sync::Arc;

/// How much longer than the longest wait a fetch may take until it is taken as lost.
const FETCH_GRACE_MS: u64 = 1_000;
/// replica.fetch.backoff.ms
const BACKOFF_MS: u64 = 1_000;
/// Batches of one partition in one answer, at most.
const BATCHES_MAX: usize = 1_000;

/// A follower's fetcher for one leader.
#[derive(Debug)]
pub(super) struct Fetcher {
    leader: BrokerId,
    session: u64,
    sequence: u64,
    /// Correlation of the fetch under way; 0: none.
    correlation: u64,
    /// When the fetch under way is lost.
    deadline: Micros,
    /// When to begin a new session because of an error; MAX: no need.
    renew_at: Micros,
    /// Slots and leader epochs that are fetched.
    parts: Vec<(usize, LeaderEpoch)>,
    /// Slots whose position changed since the last fetch.
    changed: Vec<usize>,
}

impl Fetcher {
    pub(super) fn new(leader: BrokerId) -> Fetcher {
        Fetcher {
            leader,
            session: 0,
            sequence: 0,
            correlation: 0,
            deadline: Micros::MAX,
            renew_at: Micros::MAX,
            parts: Vec::new(),
            changed: Vec::new(),
        }
    }
}

/// Which fetch of which follower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) broker: BrokerId,
    pub(super) broker_epoch: i64,
    pub(super) full: bool,
    pub(super) session: u64,
    pub(super) sequence: u64,
}

/// A partition in a follower's session.
#[derive(Debug)]
struct Part {
    position: ReplicaFetchPartition,
    state: PartState,
    told_high_watermark: Offset,
    touched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartState {
    /// The follower knows of a leader epoch that has not reached this broker yet.
    Early,
    /// In agreement with our log.
    Good,
    /// This broker does not lead in that epoch.
    NotLeader,
    /// The follower must cut its log.
    Diverging(LeaderEpoch, Offset),
}

/// A leader's memory of one follower.
#[derive(Debug)]
pub(super) struct Session {
    session: u64,
    next_sequence: u64,
    broker_epoch: i64,
    /// By slot.
    parts: Vec<Option<Part>>,
    touched: Vec<usize>,
    parked: Option<(Asker, Micros)>,
}

impl Session {
    fn touch(&mut self, slot: usize) {
        if let Some(part) = self.parts[slot].as_mut()
            && !part.touched
        {
            part.touched = true;
            self.touched.push(slot);
        }
    }
}

// The follower's side.
impl Broker {
    /// The metadata changed: begin new sessions with every leader whose partitions are others now.
    pub(super) fn refresh_fetchers(&mut self, now: Micros, fx: &mut Effects) {
        for index in 0..self.fetchers.len() {
            let leader = Role::Follower(self.fetchers[index].leader);
            let parts: Vec<_> = self
                .replicas
                .iter()
                .enumerate()
                .filter_map(|(slot, replica)| {
                    let replica = replica.as_ref()?;
                    (replica.role == leader).then_some((slot, replica.leader_epoch))
                })
                .collect();
            if parts != self.fetchers[index].parts {
                self.fetchers[index].parts = parts;
                self.renew_session(index, now, fx);
            }
        }
    }

    /// The next metadata will begin new sessions with all leaders.
    pub(super) fn forget_fetched(&mut self) {
        self.fetchers.iter_mut().for_each(|f| f.parts.clear());
    }

    /// Logs are not what they were: what is copied from all leaders begins anew.
    pub(super) fn renew_sessions(&mut self, now: Micros, fx: &mut Effects) {
        for index in 0..self.fetchers.len() {
            self.renew_session(index, now, fx);
        }
    }

    fn renew_session(&mut self, index: usize, now: Micros, fx: &mut Effects) {
        // Correlations only grow, also from process to process: good numbers for sessions.
        let session = self.next_correlation();
        let fetcher = &mut self.fetchers[index];
        fetcher.session = session;
        fetcher.sequence = 0;
        fetcher.renew_at = Micros::MAX;
        fetcher.changed = fetcher.parts.iter().map(|(slot, _)| *slot).collect();
        if fetcher.parts.is_empty() {
            fetcher.correlation = 0;
            fetcher.deadline = Micros::MAX;
        } else {
            self.fetch(index, now, fx);
        }
    }

    fn fetch(&mut self, index: usize, now: Micros, fx: &mut Effects) {
        let (Some(broker_epoch), correlation) = (self.broker_epoch, self.next_correlation()) else {
            return;
        };
        let wait_ms = self.config.replica_fetch_wait_max_ms + FETCH_GRACE_MS;
        let fetcher = &mut self.fetchers[index];
        let replicas = &self.replicas;
        let partitions = fetcher
            .changed
            .drain(..)
            .filter_map(|slot| {
                replicas[slot]
                    .as_ref()
                    .map(|replica| position(slot, replica))
            })
            .collect();
        let request = InternalRequest::ReplicaFetch {
            broker: self.id,
            broker_epoch,
            full: fetcher.sequence == 0,
            session: fetcher.session,
            sequence: fetcher.sequence,
            partitions,
        };
        fetcher.sequence += 1;
        fetcher.correlation = correlation;
        fetcher.deadline = now.plus_ms(wait_ms);
        let to = self.directory.broker(fetcher.leader);
        fx.send(
            to.expect("fetchers are made from the directory"),
            Message::Request {
                correlation,
                request: Request::Internal(request),
            },
        );
    }

    /// A leader answered. `None`: it does not know the session.
    pub(super) fn replica_fetched(
        &mut self,
        correlation: u64,
        partitions: Option<Vec<ReplicaFetched>>,
        now: Micros,
        fx: &mut Effects,
    ) {
        let mut fetchers = self.fetchers.iter();
        let Some(index) = fetchers.position(|f| f.correlation == correlation) else {
            return;
        };
        self.fetchers[index].correlation = 0;
        self.fetchers[index].deadline = Micros::MAX;
        let Some(partitions) = partitions else {
            self.renew_session(index, now, fx);
            return;
        };
        for fetched in partitions {
            self.take_fetched(index, fetched, now, fx);
        }
        self.fetch(index, now, fx);
    }

    fn take_fetched(
        &mut self,
        index: usize,
        fetched: ReplicaFetched,
        now: Micros,
        fx: &mut Effects,
    ) {
        let slot = fetched.slot;
        let leader = Role::Follower(self.fetchers[index].leader);
        let replica = self.replicas.get_mut(slot).and_then(Option::as_mut);
        let Some(replica) =
            replica.filter(|r| r.role == leader && r.leader_epoch == fetched.leader_epoch)
        else {
            return;
        };
        match fetched.result {
            ReplicaFetchResult::Data {
                batches,
                high_watermark,
                log_start,
            } => {
                if !batches.is_empty() {
                    replica.copy(batches);
                    self.fetchers[index].changed.push(slot);
                }
                replica.set_high_watermark(high_watermark);
                replica.log.delete_before(log_start);
            }
            ReplicaFetchResult::Diverging { epoch, end_offset } => {
                let before = replica.log.end();
                if let Some(end) = replica.truncate_to(epoch, end_offset) {
                    fx.note(
                        "truncated",
                        format_args!("slot {slot} from {before} to {end}"),
                    );
                }
                self.fetchers[index].changed.push(slot);
            }
            result @ (ReplicaFetchResult::NotLeader | ReplicaFetchResult::Damaged) => {
                if matches!(result, ReplicaFetchResult::Damaged) {
                    fx.note("replica-fetch-damaged", format_args!("slot {slot}"));
                }
                let fetcher = &mut self.fetchers[index];
                fetcher.renew_at = fetcher.renew_at.min(now.plus_ms(BACKOFF_MS));
            }
        }
    }

    /// Lost fetches, sessions to renew, long polls to answer.
    pub(super) fn wake_replication(&mut self, now: Micros, fx: &mut Effects) {
        for index in 0..self.fetchers.len() {
            let fetcher = &self.fetchers[index];
            if fetcher.deadline <= now || fetcher.renew_at <= now {
                self.renew_session(index, now, fx);
            }
        }
        let due: Vec<BrokerId> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.parked.is_some_and(|(_, until)| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for follower in due {
            self.answer_follower(follower, fx);
        }
    }

    pub(super) fn replication_wake(&self) -> Micros {
        let fetchers = self.fetchers.iter().map(|f| f.deadline.min(f.renew_at));
        let sessions = self.sessions.values();
        let parked = sessions.filter_map(|s| s.parked.map(|(_, until)| until));
        fetchers.chain(parked).min().unwrap_or(Micros::MAX)
    }
}

fn position(slot: usize, replica: &Replica) -> ReplicaFetchPartition {
    ReplicaFetchPartition {
        slot,
        leader_epoch: replica.leader_epoch,
        offset: replica.log.end(),
        last_epoch: replica.log.latest_epoch(),
    }
}

// The leader's side.
impl Broker {
    /// A follower fetches.
    pub(super) fn replica_fetch(
        &mut self,
        asker: Asker,
        place: Place,
        partitions: &[ReplicaFetchPartition],
        now: Micros,
        fx: &mut Effects,
    ) {
        let known = self.sessions.get(&place.broker);
        let newest = known.map_or(0, |s| s.session);
        if place.full && place.session > newest {
            let session = Session {
                session: place.session,
                next_sequence: 1,
                broker_epoch: place.broker_epoch,
                parts: (0..self.replicas.len()).map(|_| None).collect(),
                touched: Vec::new(),
                parked: None,
            };
            self.sessions.insert(place.broker, session);
        } else if known
            .is_some_and(|s| s.session == place.session && s.next_sequence == place.sequence)
        {
            let session = self.sessions.get_mut(&place.broker).expect("just seen");
            session.next_sequence += 1;
        } else {
            // A stray of an older session, or repeated: nobody waits for it. Otherwise something
            // between was lost (or this process is new): the follower must say everything again.
            let gap = known
                .is_some_and(|s| s.session == place.session && s.next_sequence < place.sequence);
            if place.session > newest || gap {
                let response = InternalResponse::ReplicaFetch { partitions: None };
                self.respond(asker, Response::Internal(response), fx);
            }
            return;
        }
        for position in partitions {
            self.place_follower(place.broker, *position, now);
        }
        let until = now.plus_ms(self.config.replica_fetch_wait_max_ms);
        let session = self.sessions.get_mut(&place.broker).expect("made above");
        session.parked = Some((asker, until));
        if session
            .touched
            .iter()
            .any(|slot| has_news(session, &self.replicas, *slot))
        {
            self.answer_follower(place.broker, fx);
        }
    }

    fn place_follower(&mut self, id: BrokerId, position: ReplicaFetchPartition, now: Micros) {
        let slot = position.slot;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(entry) = session.parts.get_mut(slot) else {
            return;
        };
        let told = entry
            .as_ref()
            .map_or(Offset(-1), |part| part.told_high_watermark);
        let touched = entry.as_ref().is_some_and(|part| part.touched);
        *entry = Some(Part {
            position,
            state: PartState::Early,
            told_high_watermark: told,
            touched,
        });
        session.touch(slot);
        self.judge_follower(id, slot, now);
    }

    /// Compares a follower's position with our log and takes note of it.
    fn judge_follower(&mut self, id: BrokerId, slot: usize, now: Micros) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let broker_epoch = session.broker_epoch;
        let (Some(part), Some(replica)) =
            (session.parts[slot].as_mut(), self.replicas[slot].as_mut())
        else {
            return;
        };
        part.state = compare(&part.position, replica);
        if part.state != PartState::Good {
            return;
        }
        let image = self.image.as_ref();
        let eligible = image
            .and_then(|image| image.broker(id))
            .is_some_and(|b| !b.fenced && b.epoch == broker_epoch);
        let end = part.position.offset;
        if replica.follower_fetched(id, broker_epoch, end, eligible, now) {
            self.consider_joining(slot);
            self.mark_dirty(slot);
        }
    }

    /// A partition's leader epoch changed: followers may have known before.
    pub(super) fn session_epoch_changed(&mut self, slot: usize, now: Micros) {
        let followers: Vec<BrokerId> = self.sessions.keys().copied().collect();
        for id in followers {
            self.judge_follower(id, slot, now);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.touch(slot);
            }
        }
        self.mark_dirty(slot);
    }

    /// There is news about a partition that this broker leads.
    pub(super) fn serve_followers(&mut self, slot: usize, fx: &mut Effects) {
        let mut ready = Vec::new();
        for (id, session) in &mut self.sessions {
            session.touch(slot);
            if session.parked.is_some() && has_news(session, &self.replicas, slot) {
                ready.push(*id);
            }
        }
        for id in ready {
            self.answer_follower(id, fx);
        }
    }

    fn answer_follower(&mut self, id: BrokerId, fx: &mut Effects) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some((asker, _)) = session.parked.take() else {
            return;
        };
        let mut partitions = Vec::new();
        for slot in std::mem::take(&mut session.touched) {
            let (Some(part), Some(replica)) =
                (session.parts[slot].as_mut(), self.replicas[slot].as_ref())
            else {
                continue;
            };
            part.touched = false;
            if let Some(result) = news_of(part, replica) {
                partitions.push(ReplicaFetched {
                    slot,
                    leader_epoch: part.position.leader_epoch,
                    result,
                });
            }
        }
        let response = InternalResponse::ReplicaFetch {
            partitions: Some(partitions),
        };
        self.respond(asker, Response::Internal(response), fx);
    }
}

fn compare(position: &ReplicaFetchPartition, replica: &Replica) -> PartState {
    if position.leader_epoch > replica.leader_epoch {
        return PartState::Early;
    }
    if position.leader_epoch < replica.leader_epoch || !replica.leads() {
        return PartState::NotLeader;
    }
    if position.last_epoch < 0 {
        return PartState::Good;
    }
    match replica.log.end_of_epoch(position.last_epoch) {
        None => PartState::Diverging(-1, Offset(0)),
        Some((epoch, end)) if epoch < position.last_epoch || end < position.offset => {
            PartState::Diverging(epoch, end)
        }
        Some(_) => PartState::Good,
    }
}

/// Is there something that a waiting follower should hear at once? A higher high watermark is not:
/// it goes along with the next answer.
fn has_news(session: &Session, replicas: &[Option<Replica>], slot: usize) -> bool {
    let (Some(part), Some(replica)) = (session.parts[slot].as_ref(), replicas[slot].as_ref())
    else {
        return false;
    };
    match part.state {
        PartState::Early => false,
        PartState::Good => replica.log.end() > part.position.offset,
        PartState::NotLeader | PartState::Diverging(..) => true,
    }
}

fn news_of(part: &mut Part, replica: &Replica) -> Option<ReplicaFetchResult> {
    match part.state {
        PartState::Early => None,
        PartState::NotLeader => Some(ReplicaFetchResult::NotLeader),
        PartState::Diverging(epoch, end_offset) => {
            Some(ReplicaFetchResult::Diverging { epoch, end_offset })
        }
        PartState::Good => {
            let batches = replica.log.range(part.position.offset, replica.log.end());
            let batches = &batches[..batches.len().min(BATCHES_MAX)];
            let high_watermark = replica.high_watermark;
            if batches.is_empty() && high_watermark == part.told_high_watermark {
                return None;
            }
            part.told_high_watermark = high_watermark;
            Some(ReplicaFetchResult::Data {
                batches: batches.iter().map(Arc::clone).collect(),
                high_watermark,
                log_start: replica.log.start(),
            })
        }
    }
}

// The leader's ISR.
impl Broker {
    /// Asks for followers that have caught up to join the ISR.
    pub(super) fn consider_joining(&mut self, slot: usize) {
        let Some(replica) = self.replicas[slot].as_mut() else {
            return;
        };
        let joining = replica.ready_to_join();
        if joining.is_empty() {
            return;
        }
        let mut isr = replica.isr.clone();
        isr.extend(joining);
        isr.sort_unstable();
        replica.wanted_isr = Some(isr);
        self.isr_wishes.push(slot);
    }

    /// Asks for followers that lag to leave the ISR.
    pub(super) fn check_lag(&mut self, now: Micros) {
        let lag_ms = self.config.replica_lag_time_max_ms;
        self.lag_check_at = now.plus_ms(lag_ms / 2);
        for slot in 0..self.replicas.len() {
            let Some(replica) = self.replicas[slot].as_mut() else {
                continue;
            };
            let lagging = replica.lagging(lag_ms, now);
            if !lagging.is_empty() {
                let isr = replica.isr.iter().filter(|id| !lagging.contains(id));
                replica.wanted_isr = Some(isr.copied().collect());
                self.isr_wishes.push(slot);
            }
        }
    }

    pub(super) fn send_isr_wishes(&mut self, now: Micros, fx: &mut Effects) {
        let slots = std::mem::take(&mut self.isr_wishes);
        let Some(broker_epoch) = self.broker_epoch else {
            return;
        };
        let mut asked = Vec::new();
        let mut changes = Vec::new();
        for slot in slots {
            let replica = self.replicas[slot].as_ref();
            let Some(replica) = replica.filter(|r| r.leads()) else {
                continue;
            };
            if let Some(wanted) = &replica.wanted_isr {
                let with_epoch = |id: &BrokerId| {
                    let follower = replica.followers.iter().find(|f| f.id == *id);
                    (*id, follower.map_or(broker_epoch, |f| f.broker_epoch))
                };
                changes.push(IsrChange {
                    slot,
                    leader_epoch: replica.leader_epoch,
                    partition_epoch: replica.partition_epoch,
                    isr: wanted.iter().map(with_epoch).collect(),
                });
                asked.push(slot);
            }
        }
        if changes.is_empty() {
            return;
        }
        let request = InternalRequest::AlterPartition {
            broker: self.id,
            broker_epoch,
            changes,
        };
        let what = Sent::AlterPartition { slots: asked };
        self.ask(self.directory.controller, request, what, now, fx);
    }

    /// The controller answered.
    pub(super) fn isr_changed(&mut self, results: &[(usize, IsrResult)]) {
        for (slot, result) in results {
            let Some(replica) = self.replicas.get_mut(*slot).and_then(Option::as_mut) else {
                continue;
            };
            match result {
                IsrResult::Done(epoch) if replica.leads() && *epoch > replica.partition_epoch => {
                    if let Some(isr) = replica.wanted_isr.take() {
                        replica.isr = isr;
                        replica.partition_epoch = *epoch;
                        self.mark_dirty(*slot);
                    }
                }
                // Unknown or old news: the wish stays until the metadata tells.
                IsrResult::Done(_) | IsrResult::Stale => {}
                IsrResult::Ineligible => replica.wanted_isr = None,
            }
        }
    }
}
