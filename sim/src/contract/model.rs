//! The simulated cluster as a cluster under test: a fabric of its own for each behaviour, played in
//! virtual time.
//!
//! Comes in: a seed, and the program that plays. Goes out: the program's result.

use super::wire::{Wire, refused};
use super::{ClientOptions, ClusterUnderTest, Failure, Kept, Setting, Topic, TopicSpec, Trouble};
use crate::client::{ClientSettings, SimKafka};
use crate::fabric::actor::{Actor, Address, Effects, HostId, Micros};
use crate::fabric::network::{FaultIndex, Rule};
use crate::fabric::{Fabric, Handle, Step};
use crate::kafka::protocol::{BrokerId, LogTimeMs, Message, Request, Response, TopicIndex};
use crate::kafka::{Broker, ClusterConfig, Controller, Directory, TopicConfig};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const BROKERS: u32 = 3;
/// Hosts: 0 the controller, 1 to 3 brokers, then those of applications, in turn.
const FIRST_APPLICATION: u16 = 4;
const APPLICATIONS: u16 = 4;
/// Topics of each kind that a behaviour may create.
const TOPICS_EACH: u32 = 3;
/// Partitions of the largest topic.
const PARTITIONS_MAX: u32 = 3;
/// More events than any behaviour needs.
const EVENTS_MAX: u64 = 5_000_000;
/// Until a request without an answer is given up.
const ANSWER_MS: u64 = 5_000;
/// Until a connection to a dead broker is refused.
const REFUSED: Duration = Duration::from_millis(1);
/// The only fault of this world: what quotas do.
const QUOTAS: FaultIndex = 0;
/// Quotas let one request through in so many milliseconds.
const PACE_MS: u64 = 200;
/// What nobody uses is forgotten after so long, as soon as somebody looks.
const FORGETS_AFTER_MS: u64 = 120_000;
const LOOKS_EVERY: Duration = Duration::from_secs(10);
const UNIX_MS_AT_ZERO: i64 = 1_700_000_000_000;
/// How long a cluster may take to be whole again.
const HEALING_MS: u64 = 120_000;

/// A simulated cluster.
pub struct SimulatedCluster {
    fabric: Fabric,
    directory: Arc<Vec<(BrokerId, Address)>>,
    brokers: Vec<Handle<Broker>>,
    config: Arc<ClusterConfig>,
    taken: Vec<bool>,
    asker: Handle<Asker>,
    names: u32,
    clients: u16,
}

/// A connection of the test's own: remembers answers.
#[derive(Debug, Default)]
struct Asker {
    sent: u64,
    answers: BTreeMap<u64, Response>,
}

impl Actor for Asker {
    fn receive(&mut self, _now: Micros, _from: Address, message: Message, fx: &mut Effects) {
        if let Message::Response {
            correlation,
            response,
        } = message
        {
            self.answers.insert(correlation, response);
            fx.notify();
        }
    }

    fn wake(&mut self, _now: Micros, _fx: &mut Effects) {}

    fn next_wake(&self) -> Micros {
        Micros::MAX
    }
}

fn config() -> ClusterConfig {
    let topic = |name: &str, partitions, min_insync_replicas| TopicConfig {
        name: name.into(),
        topic_id: format!("id-{name}").into(),
        partitions,
        shown_partitions: partitions,
        log_append_time: false,
        min_insync_replicas,
    };
    let mut topics = vec![
        topic("__consumer_offsets", 3, None),
        topic("__transaction_state", 3, None),
    ];
    for number in 0..TOPICS_EACH {
        for partitions in 1..=PARTITIONS_MAX {
            for replicas in [2, 3] {
                let name = format!("topic-{partitions}-{replicas}-{number}");
                topics.push(topic(&name, partitions, Some(replicas)));
            }
        }
    }
    for shown in 1..PARTITIONS_MAX {
        topics.push(TopicConfig {
            shown_partitions: shown,
            ..topic(&format!("growing-{shown}"), PARTITIONS_MAX, Some(2))
        });
    }
    ClusterConfig {
        topics,
        brokers: BROKERS,
        min_insync_replicas: 2,
        replica_lag_time_max_ms: 10_000,
        replica_fetch_wait_max_ms: 500,
        broker_session_timeout_ms: 9_000,
        broker_heartbeat_interval_ms: 2_000,
        transaction_cleanup_interval_ms: 2_000,
        transaction_max_timeout_ms: 900_000,
        group_initial_rebalance_delay_ms: 100,
        message_max_bytes: 1_048_588,
        transactional_id_expiration_ms: FORGETS_AFTER_MS,
        producer_id_expiration_ms: FORGETS_AFTER_MS,
        transaction_verification: true,
        broken: None,
        unix_ms_at_zero: UNIX_MS_AT_ZERO,
    }
}

/// Plays `program` on a new cluster until it is over.
///
/// # Errors
/// What the program ends with, or that nothing happens any more.
pub fn play<R>(
    seed: u64,
    program: impl AsyncFnOnce(&mut SimulatedCluster) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let mut cluster = SimulatedCluster::new(seed);
    let fabric = cluster.fabric.clone();
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let mut program = pin!(program(&mut cluster));
    loop {
        while flag.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(result) = program.as_mut().poll(&mut context) {
                return result;
            }
        }
        if fabric.step() == Step::Idle || fabric.events() > EVENTS_MAX {
            let now = fabric.now().as_ms();
            return Err(Failure(format!("the world stands still at {now} ms")));
        }
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SimulatedCluster {
    fn new(seed: u64) -> SimulatedCluster {
        let mut names = vec!["controller".to_owned()];
        names.extend((1..=BROKERS).map(|id| format!("broker-{id}")));
        names.extend((0..APPLICATIONS).map(|id| format!("application-{id}")));
        let fabric = Fabric::new(seed, &names, 1, false);
        let config = Arc::new(config());
        let brokers: Vec<_> = (1..=BROKERS)
            .map(|id| (BrokerId(id), Address(id)))
            .collect();
        let directory = Arc::new(Directory {
            controller: Address(0),
            brokers: brokers.clone(),
        });
        fabric.spawn_actor(
            HostId(0),
            Controller::new(config.clone(), directory.clone()),
        );
        let handles = brokers
            .iter()
            .map(|(id, address)| {
                let broker = Broker::new(*id, config.clone(), directory.clone());
                let handle = fabric.spawn_actor(host_of(*id), broker);
                assert_eq!(
                    handle.address(),
                    *address,
                    "brokers come after the controller"
                );
                handle
            })
            .collect();
        let asker = fabric.spawn_actor(HostId(FIRST_APPLICATION), Asker::default());
        SimulatedCluster {
            fabric,
            directory: Arc::new(brokers),
            brokers: handles,
            taken: vec![false; config.topics.len()],
            config,
            asker,
            names: 0,
            clients: 0,
        }
    }

    async fn send(
        &mut self,
        broker: BrokerId,
        request: Request,
        on_its_way: fn(&mut Message),
    ) -> Result<Option<Response>, Failure> {
        if !self.fabric.is_alive(host_of(broker)) {
            self.wait(REFUSED).await;
            return Ok(None);
        }
        let to = Address(broker.0);
        let correlation = self.asker.with(|asker, _, fx| {
            asker.sent += 1;
            let correlation = asker.sent;
            let mut message = Message::Request {
                correlation,
                request,
            };
            on_its_way(&mut message);
            fx.send(to, message);
            correlation
        });
        let deadline = self.fabric.now().plus_ms(ANSWER_MS);
        let look = |asker: &mut Asker, _, _: &mut Effects| {
            let answer = asker.answers.remove(&correlation);
            answer.map_or(Poll::Pending, Poll::Ready)
        };
        Ok(self.asker.wait(deadline, look).await)
    }

    /// True when every broker is in the ISR of every partition, as the leaders know it.
    fn is_whole(&self) -> bool {
        let count = self.config.topics.len();
        let mut led = 0;
        let mut whole = true;
        for broker in &self.brokers {
            broker.with(|broker, _, _| {
                for index in 0..count {
                    let topic = TopicIndex(u16::try_from(index).expect("few topics"));
                    for slot in broker.layout().slots_of(topic) {
                        let tp = broker.layout().partition(slot);
                        let view = broker.replica_view(tp);
                        if let Some(view) = view.filter(|view| view.leads_in_epoch.is_some()) {
                            led += 1;
                            whole &= view.isr.len() == self.brokers.len();
                        }
                    }
                }
            });
        }
        let partitions: u32 = self
            .config
            .topics
            .iter()
            .map(|topic| topic.partitions)
            .sum();
        whole && led == partitions
    }
}

fn host_of(broker: BrokerId) -> HostId {
    HostId(u16::try_from(broker.0).expect("three brokers"))
}

impl ClusterUnderTest for SimulatedCluster {
    type Kafka = SimKafka;

    fn kafka(&mut self, options: &ClientOptions) -> Result<SimKafka, Failure> {
        let host = HostId(FIRST_APPLICATION + self.clients % APPLICATIONS);
        self.clients += 1;
        let settings = ClientSettings {
            protocol: options.protocol,
            session_timeout_ms: options.session_timeout_ms,
            heartbeat_interval_ms: options.session_timeout_ms / 3,
            max_poll_interval_ms: options.max_poll_interval_ms,
            transaction_timeout_ms: options.transaction_timeout_ms,
            request_timeout_ms: 2_000,
            metadata_refresh_ms: options.metadata_refresh_ms,
            ..ClientSettings::default()
        };
        let directory = self.directory.clone();
        Ok(SimKafka::new(
            self.fabric.clone(),
            host,
            directory,
            settings,
        ))
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    async fn create_topic(&mut self, spec: TopicSpec) -> Result<Topic, Failure> {
        let fits = |topic: &TopicConfig| {
            topic.shown_partitions == spec.partitions
                && (topic.shown_partitions < topic.partitions) == spec.may_grow
                && topic.min_insync_replicas == usize::try_from(spec.min_insync_replicas).ok()
        };
        let free = (0..self.taken.len())
            .find(|&index| !self.taken[index] && fits(&self.config.topics[index]));
        let index = free.ok_or_else(|| Failure(format!("no topic is left for {spec:?}")))?;
        self.taken[index] = true;
        Ok(Topic {
            name: self.config.topics[index].name.to_string(),
            index: TopicIndex(u16::try_from(index).expect("few topics")),
            partitions: spec.partitions,
        })
    }

    async fn grow_topic(&mut self, topic: &Topic, partitions: u32) -> Result<(), Failure> {
        let known = self.config.topics.get(usize::from(topic.index.0));
        if known.is_none_or(|known| known.partitions < partitions) {
            let name = &topic.name;
            return Err(Failure(format!("{name} cannot have {partitions}")));
        }
        for broker in &self.brokers {
            broker.with(|broker, _, _| broker.show_partitions(topic.index, partitions));
        }
        Ok(())
    }

    async fn recreate_topic(&mut self, topic: &Topic) -> Result<(), Failure> {
        self.names += 1;
        let id: Arc<str> = format!("id-{}-{}", topic.name, self.names).into();
        for broker in &self.brokers {
            broker.with(|broker, now, fx| broker.recreate(topic.index, id.clone(), now, fx));
        }
        Ok(())
    }

    fn brokers(&self) -> Vec<BrokerId> {
        self.directory.iter().map(|(id, _)| *id).collect()
    }

    async fn ask(
        &mut self,
        broker: BrokerId,
        request: Request,
    ) -> Result<Option<Response>, Failure> {
        self.send(broker, request, |_| {}).await
    }

    async fn ask_damaged(
        &mut self,
        broker: BrokerId,
        request: Request,
    ) -> Result<Option<Response>, Failure> {
        self.send(broker, request, Message::damage).await
    }

    async fn harm(&mut self, broker: BrokerId, trouble: Trouble) -> Result<(), Failure> {
        match trouble {
            Trouble::Killed => self.fabric.crash_host(host_of(broker), false),
            Trouble::Paused => self.fabric.pause_host(host_of(broker)),
        }
        Ok(())
    }

    async fn throttle(&mut self, on: bool) -> Result<(), Failure> {
        let hosts = FIRST_APPLICATION..FIRST_APPLICATION + APPLICATIONS;
        let mask = hosts.map(|host| 1 << host).sum();
        self.fabric.network(|network| match on {
            true => network.begin(QUOTAS, Rule::Pace(mask, PACE_MS)),
            false => network.heal(QUOTAS),
        });
        Ok(())
    }

    fn was_throttled(&self) -> bool {
        self.fabric.network(|network| network.hits()[QUOTAS] > 0)
    }

    async fn configure(&mut self, setting: Setting) -> Result<(), Failure> {
        for broker in &self.brokers {
            broker.with(|broker, _, _| {
                broker.configure(|config| match setting {
                    Setting::TransactionVerification(on) => config.transaction_verification = on,
                });
            });
        }
        Ok(())
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        let as_it_was = self.config.transaction_verification;
        self.configure(Setting::TransactionVerification(as_it_was))
            .await?;
        for broker in self.brokers() {
            let host = host_of(broker);
            if !self.fabric.is_alive(host) {
                self.fabric.restart_host(host);
            }
            if self.fabric.is_paused(host) {
                self.fabric.resume_host(host);
            }
        }
        let deadline = self.fabric.now().plus_ms(HEALING_MS);
        while !self.is_whole() {
            if self.fabric.now() > deadline {
                return Err(Failure("the cluster does not become whole again".into()));
            }
            self.wait(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn now(&self) -> LogTimeMs {
        LogTimeMs(UNIX_MS_AT_ZERO.saturating_add_unsigned(self.fabric.now().as_ms()))
    }

    async fn outlast(&mut self, what: &Kept) -> Result<(), Failure> {
        match what {
            Kept::TransactionalIds | Kept::Producers => {
                let whole = Duration::from_millis(FORGETS_AFTER_MS) + LOOKS_EVERY;
                self.wait(whole).await;
                Ok(())
            }
            // Time does not do it here: a plan says when it happens.
            Kept::Offsets(group) => {
                let done = self.delete_group(group).await?;
                done.map_err(refused("DeleteGroups"))
            }
        }
    }

    async fn wait(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let host = HostId(FIRST_APPLICATION);
        self.fabric.sleep(host, Micros(us)).await;
    }
}
