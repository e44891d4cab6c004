//! What requests carry, in full and as JSON, for who tells the story of a run from its trace.

use super::protocol::{Batch, Header, Message, OffsetCommit, Payload, Request, TopicPartition};
use bytes::Bytes;
use serde_json::{Map, Value, json};

impl Message {
    /// Kind and text of a line of the trace for each record, offset or registration that this
    /// request carries; nothing of other messages.
    #[must_use]
    pub fn contents(&self) -> Vec<(&'static str, String)> {
        let Message::Request { request, .. } = self else {
            return Vec::new();
        };
        match request {
            Request::Produce { batches, .. } => {
                let batches = batches.iter();
                batches
                    .flat_map(|(tp, batch)| records(*tp, batch))
                    .collect()
            }
            Request::TxnOffsetCommit {
                transactional_id,
                offsets,
                ..
            } => {
                let lines = offsets.iter();
                lines
                    .map(|commit| offset(transactional_id, commit))
                    .collect()
            }
            Request::AddPartitionsToTxn {
                transactional_id,
                producer_id,
                ..
            } => {
                let text =
                    json!({ "transactional_id": &**transactional_id, "producer": producer_id });
                vec![("sent-partitions", text.to_string())]
            }
            _ => Vec::new(),
        }
    }
}

fn records(tp: TopicPartition, batch: &Batch) -> Vec<(&'static str, String)> {
    let Payload::Records(records) = &batch.payload else {
        return Vec::new();
    };
    let (mut producer, mut sequence) = (None, 0);
    if let Some(stamp) = batch.producer {
        producer = Some((stamp.id, stamp.epoch));
        sequence = stamp.base_sequence;
    }
    let line = |(index, record): (usize, &super::protocol::Record)| {
        let text = json!({
            "topic": tp.topic.0,
            "partition": tp.partition.0,
            "producer": producer.map(|(id, _)| id),
            "epoch": producer.map(|(_, epoch)| epoch),
            "number": i64::from(sequence) + i64::try_from(index).unwrap_or(0),
            "key": record.key.as_ref().map(text),
            "value": record.value.as_ref().map(text),
            "headers": headers(&record.headers),
        });
        ("sent-record", text.to_string())
    };
    records.iter().enumerate().map(line).collect()
}

fn headers(headers: &[Header]) -> Map<String, Value> {
    let pairs = headers.iter();
    pairs
        .map(|header| (header.name.to_string(), Value::String(text(&header.value))))
        .collect()
}

fn offset(transactional_id: &str, commit: &OffsetCommit) -> (&'static str, String) {
    let text = json!({
        "transactional_id": transactional_id,
        "topic": commit.tp.topic.0,
        "partition": commit.tp.partition.0,
        "offset": commit.offset.0,
        "metadata": &*commit.metadata,
    });
    ("sent-offset", text.to_string())
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
