//! Marks: proof that a run really took the paths that are hard to get right.
//!
//! Comes in: the lines of the trace while they are written, and a few hooks for what would be too much
//! for a line. Goes out: how often each mark of the [`CATALOG`] was reached.
//! Never here: lines that are kept (campaigns keep none); anything that changes the run.
//!
//! A mark is one kind of line, a kind of line with certain words, or several lines in an order that
//! `paths` knows. The processor knows nothing of marks: a worker is seen by the events that it tells
//! its operator.

mod catalog;
mod paths;
#[cfg(test)]
mod tests;
mod text;
mod workers;

pub use catalog::CATALOG;

use crate::fabric::actor::HostId;
use paths::Paths;
use std::collections::BTreeMap;

/// A path that is hard to get right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Name, in kebab case.
    pub name: &'static str,
    /// What has happened when it is reached.
    pub says: &'static str,
    /// How it is recognised.
    pub by: By,
}

/// How a mark is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A line of this kind.
    Line(&'static str),
    /// A line of this kind, with these words in its text.
    Words(&'static str, &'static str),
    /// Several lines in a certain order, or a hook.
    Path,
}

/// Names of all marks, in the order of the catalogue.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOG.iter().map(|mark| mark.name)
}

const READ_BACK: &str = "spilled-and-read-back";

/// Recognises marks while a run goes.
#[derive(Debug)]
pub struct Marks {
    /// Marks by words: by kind of line, the words and the mark's name.
    words: BTreeMap<&'static str, Vec<(&'static str, &'static str)>>,
    paths: Paths,
    reached: Reached,
}

/// How often each mark was reached that is more than a line.
#[derive(Debug, Default)]
struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    fn add(&mut self, name: &'static str) {
        debug_assert!(
            names().any(|known| known == name),
            "{name} is not in the catalogue"
        );
        *self.0.entry(name).or_default() += 1;
    }

    fn add_if(&mut self, holds: bool, name: &'static str) {
        if holds {
            self.add(name);
        }
    }
}

impl Marks {
    /// Nothing is reached yet. `hosts`: names of the machines, in the order of their ids.
    #[must_use]
    pub fn new(hosts: &[String]) -> Marks {
        let mut words: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for mark in CATALOG {
            if let By::Words(kind, words_of) = mark.by {
                words.entry(kind).or_default().push((words_of, mark.name));
            }
        }
        Marks {
            words,
            paths: Paths::new(hosts),
            reached: Reached::default(),
        }
    }

    /// A line of the trace.
    pub fn line(&mut self, host: HostId, kind: &'static str, text: &str) {
        if let Some(words) = self.words.get(kind) {
            for (words, name) in words {
                self.reached.add_if(text.contains(words), name);
            }
        }
        self.paths.line(host, kind, text, &mut self.reached);
    }

    /// What a commit of a worker has made visible of one partition.
    pub fn outputs(&mut self, host: HostId, partition: i32, outputs: Outputs) {
        self.paths
            .outputs(host, partition, outputs, &mut self.reached);
    }

    /// A worker deletes an object of a partition's checkpoints.
    pub fn object_deleted(&mut self, host: HostId, partition: i32) {
        self.paths
            .object_deleted(host, partition, &mut self.reached);
    }

    /// What a worker spilled was read back so often.
    pub fn read_back(&mut self, times: u64) {
        if times > 0 {
            *self.reached.0.entry(READ_BACK).or_default() += times;
        }
    }

    /// Ends the run: how often each mark was reached, without those that were not. `kinds`: how often
    /// each kind of line was written.
    #[must_use]
    pub fn finish(self, kinds: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
        let spilled = kinds.contains_key("spilled");
        let times = |mark: &Mark| match mark.by {
            By::Line(kind) => kinds.get(kind),
            // A failed upload reads its pieces once more, too.
            _ if mark.name == READ_BACK && !spilled => None,
            By::Words(..) | By::Path => self.reached.0.get(mark.name),
        };
        let reached = CATALOG
            .iter()
            .filter_map(|mark| Some((mark.name, *times(mark)?)));
        reached.collect()
    }
}

/// What is of interest of the outputs of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outputs {
    /// A result among them corrects an older one.
    pub corrects: bool,
    /// A dead letter among them came too late.
    pub too_late: bool,
}
