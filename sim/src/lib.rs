//! The world in which a processor is tried: a Kafka cluster and its client library, a network, an
//! object store, clocks, faults and a trace, all in virtual time and all drawn from one seed.
//!
//! Comes in: a [`plan::Plan`]. Goes out: a [`world::RunRecord`], what happened and what a user of the
//! topics can see of it.
//! Never here: checks of results; threads, wall clocks, unkeyed randomness, hash order.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`plan`] | what will happen, as data |
//! | [`draw`] | every random choice: a keyed hash |
//! | [`fabric`] | virtual time, the event queue, the network, actors and the processes beside them |
//! | [`kafka`] | the cluster as pure state machines |
//! | [`client`] | a client library that behaves as librdkafka does |
//! | [`marks`] | which of the hard paths a run took |
//! | [`objects`] | an object store with S3's promises and no more |
//! | [`clock`] | the clock of a process |
//! | [`contract`] | what both this cluster and a genuine one must do |
//! | [`disk`] | the local state of a machine |
//! | [`sabotage`] | broken promises, to see that checkers notice |
//! | [`tap`] | every I/O of a worker process, numbered; death at a chosen one |
//! | [`trace`] | everything that happened, in order, hashed |
//! | [`world`] | plays a plan against the processor |

#[cfg(not(madsim))]
compile_error!(
    "this workspace needs the compiler flag `--cfg madsim`, which .cargo/config.toml sets: unset the \
     variable RUSTFLAGS (also when it is empty) and build from inside the workspace"
);

pub mod client;
pub mod clock;
pub mod contract;
pub mod disk;
pub mod draw;
pub mod fabric;
pub mod kafka;
pub mod marks;
pub mod objects;
pub mod plan;
pub mod sabotage;
pub mod tap;
pub mod trace;
pub mod world;
