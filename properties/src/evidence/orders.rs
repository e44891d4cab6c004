//! The orders in which checkers read outputs. All begin with the partition that is judged.

use super::Output;
use crate::code::{Code, code_fields};
use crate::spill::Spill;
use std::cmp::Ordering;
use std::rc::Rc;

/// As it stands in its topic: by (source partition, topic, partition, offset).
#[derive(Debug, Clone)]
pub struct InLog(pub Rc<Output>);

/// By (source partition, sequence), then as in the log.
#[derive(Debug, Clone)]
pub struct InSequence(pub Rc<Output>);

/// A result by (source partition, ticker, window), then by (revision, sequence).
#[derive(Debug, Clone)]
pub struct InWindow(pub Rc<Output>);

/// A dead letter by the input record that it points to.
#[derive(Debug, Clone)]
pub struct Pointing {
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// The letter.
    pub letter: Rc<Output>,
}

impl InWindow {
    /// Ticker and start of the window.
    #[must_use]
    pub fn key(&self) -> (&str, i64) {
        self.0.window.as_ref().map_or(("", i64::MIN), |window| {
            (window.ticker.as_str(), window.start_ms)
        })
    }
}

fn in_log(output: &Output) -> (i32, super::Kind, i32, i64) {
    (
        output.source_partition,
        output.kind,
        output.partition,
        output.offset,
    )
}

impl Spill for InLog {
    fn order(&self, other: &Self) -> Ordering {
        in_log(&self.0).cmp(&in_log(&other.0))
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Spill for InSequence {
    fn order(&self, other: &Self) -> Ordering {
        let key = |output: &Output| (output.source_partition, output.sequence, in_log(output));
        key(&self.0).cmp(&key(&other.0))
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Spill for InWindow {
    fn order(&self, other: &Self) -> Ordering {
        let by_source = self.0.source_partition.cmp(&other.0.source_partition);
        let last = |output: &Output| (output.revision, output.sequence, in_log(output));
        by_source
            .then_with(|| self.key().cmp(&other.key()))
            .then_with(|| last(&self.0).cmp(&last(&other.0)))
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Spill for Pointing {
    fn order(&self, other: &Self) -> Ordering {
        let key = |one: &Self| (one.partition, one.offset, in_log(&one.letter));
        key(self).cmp(&key(other))
    }

    fn bytes(&self) -> usize {
        self.letter.bytes()
    }
}

/// Puts an output without its key and value: checkers that read it in this order need neither.
fn put_envelope(output: &Output, to: &mut Vec<u8>) {
    let envelope = Output {
        key: None,
        value: None,
        ..output.clone()
    };
    envelope.put(to);
}

impl Code for InLog {
    fn put(&self, to: &mut Vec<u8>) {
        put_envelope(&self.0, to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Output::take(from).map(|output| Self(Rc::new(output)))
    }
}

impl Code for InSequence {
    fn put(&self, to: &mut Vec<u8>) {
        put_envelope(&self.0, to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Output::take(from).map(|output| Self(Rc::new(output)))
    }
}

impl Code for InWindow {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Output::take(from).map(|output| Self(Rc::new(output)))
    }
}

code_fields!(Pointing {
    partition,
    offset,
    letter,
});

impl Code for Rc<Output> {
    fn put(&self, to: &mut Vec<u8>) {
        self.as_ref().put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Output::take(from).map(Rc::new)
    }
}
