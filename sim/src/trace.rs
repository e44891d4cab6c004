//! Everything that happened, in order: always hashed, kept as lines when somebody wants to read it.

use crate::fabric::actor::Micros;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceLine {
    /// Virtual microseconds.
    pub at_us: u64,
    /// Machine.
    pub host: String,
    /// Kind, in kebab case.
    pub kind: &'static str,
    /// Details.
    pub text: String,
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6}.{:06} {:<12} {:<24} {}",
            self.at_us / 1_000_000,
            self.at_us % 1_000_000,
            self.host,
            self.kind,
            self.text
        )
    }
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    keep: bool,
    lines: Vec<TraceLine>,
    kinds: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// An empty trace; `keep`: lines are stored.
    #[must_use]
    pub fn new(keep: bool) -> Trace {
        Trace {
            hash: 0,
            keep,
            lines: Vec::new(),
            kinds: BTreeMap::new(),
        }
    }

    /// True if lines are stored (so that the caller need not format what nobody reads).
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Mixes a delivery into the hash.
    pub fn delivery(&mut self, at: Micros, from: u32, to: u32, what: u64) {
        let link = (u64::from(from) << 32) | u64::from(to);
        let mut hash = self.hash ^ at.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash = (hash.rotate_left(29) ^ link).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        hash = (hash.rotate_left(31) ^ what).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.hash = hash ^ (hash >> 32);
    }

    /// A note: hashed, counted by kind, and kept if wanted.
    pub fn note(&mut self, at: Micros, host: &str, kind: &'static str, text: &str) {
        self.hash = xxh3_64_with_seed(text.as_bytes(), self.hash ^ at.0);
        self.hash = xxh3_64_with_seed(kind.as_bytes(), self.hash);
        *self.kinds.entry(kind).or_default() += 1;
        self.line(at, host, kind, || text.to_owned());
    }

    /// A line that is kept but not hashed (its event already was).
    pub fn line(
        &mut self,
        at: Micros,
        host: &str,
        kind: &'static str,
        text: impl FnOnce() -> String,
    ) {
        if self.keep {
            self.lines.push(TraceLine {
                at_us: at.0,
                host: host.to_owned(),
                kind,
                text: text(),
            });
        }
    }

    /// Hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Ends the trace: hash, kept lines, and how often each kind was noted.
    #[must_use]
    pub fn finish(self) -> (u64, Vec<TraceLine>, BTreeMap<&'static str, u64>) {
        (self.hash, self.lines, self.kinds)
    }
}
