//! Record batches between the contract's form and Kafka's.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record as WireRecord, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use sim::contract::Failure;
use sim::kafka::protocol::{Batch, Header, LogTimeMs, Offset, Payload, ProducerStamp, Record};
use std::sync::Arc;

/// A client's batch in Kafka's form.
pub fn encode(batch: &Batch) -> Result<Bytes, Failure> {
    let Payload::Records(records) = &batch.payload else {
        return Err(Failure("only records are produced".into()));
    };
    let stamp = batch.producer;
    let with_place = (0..).zip(records);
    let records: Vec<WireRecord> = with_place
        .map(|(place, record): (i32, &Record)| WireRecord {
            transactional: stamp.is_some_and(|stamp| stamp.transactional),
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: stamp.map_or(-1, |stamp| stamp.id),
            producer_epoch: stamp.map_or(-1, |stamp| stamp.epoch),
            timestamp_type: TimestampType::Creation,
            offset: i64::from(place),
            sequence: stamp.map_or(-1, |stamp| stamp.base_sequence.wrapping_add(place)),
            timestamp: record.timestamp.0,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: IndexMap::from_iter(record.headers.iter().map(|header| {
                let name = StrBytes::from_string(header.name.clone());
                (name, Some(header.value.clone()))
            })),
        })
        .collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options)
        .map_err(|why| Failure(format!("a batch cannot be encoded: {why:#}")))?;
    Ok(bytes.freeze())
}

/// As it is when a bit of the last record has turned over.
pub fn damaged(encoded: &Bytes) -> Bytes {
    let mut bytes = encoded.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// The batches of a fetch.
pub fn decode(mut bytes: Bytes) -> Result<Vec<Arc<Batch>>, Failure> {
    let sets = RecordBatchDecoder::decode_all(&mut bytes)
        .map_err(|why| Failure(format!("a fetched batch cannot be read: {why:#}")))?;
    let records = sets.into_iter().flat_map(|set| set.records);
    // One batch for each record: what a reader sees is the same.
    Ok(records.map(|record| Arc::new(batch_of(record))).collect())
}

fn batch_of(record: WireRecord) -> Batch {
    let producer = (record.producer_id >= 0).then_some(ProducerStamp {
        id: record.producer_id,
        epoch: record.producer_epoch,
        base_sequence: record.sequence,
        transactional: record.transactional,
    });
    let payload = if record.control {
        marker_of(&record)
    } else {
        let headers = record.headers.into_iter().map(|(name, value)| Header {
            name: name.to_string(),
            value: value.unwrap_or_default(),
        });
        Payload::Records(vec![Record {
            timestamp: LogTimeMs(record.timestamp),
            key: record.key,
            value: record.value,
            headers: headers.collect(),
        }])
    };
    Batch {
        base_offset: Offset(record.offset),
        leader_epoch: record.partition_leader_epoch,
        producer,
        payload,
    }
}

/// A control record: version and type (0: abort, 1: commit) are its key; its value has a version and
/// the coordinator's epoch.
fn marker_of(record: &WireRecord) -> Payload {
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    let epoch = value.get(2..6).and_then(|bytes| bytes.try_into().ok());
    Payload::Marker {
        commit: key.get(2..4) == Some(&[0, 1]),
        coordinator_epoch: epoch.map_or(-1, i32::from_be_bytes),
        timestamp: LogTimeMs(record.timestamp),
    }
}
