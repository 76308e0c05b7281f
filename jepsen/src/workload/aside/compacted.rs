//! A compacted topic: the latest record of each key survives, on every replica.

use std::sync::Arc;

use highwater_checker::{Action, Function, Kind, Offset, Value};
use highwater_client::{ConsumedRecord, NewTopic, ProducerRecord};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::super::pace::Pace;
use super::super::{Shared, body};
use super::{COMPACTED, Place, Sender, key, record_one};

pub(super) const PARTITIONS: u32 = 2;
/// Keys of a partition's records.
const KEYS: i64 = 25;
/// One record of so many of a key is a tombstone.
const TOMBSTONES: i64 = 7;
/// A partition of so many records has segments that should have been compacted.
pub(super) const MANY: u64 = 400;
/// Records a second, of one partition.
const RATE: f64 = 8.0;
/// Carries the value: a tombstone has none of its own.
const HEADER: &str = "v";

fn name(shared: &Shared) -> String {
    format!("{}-compacted", shared.plan.topic)
}

pub(super) fn topic(shared: &Shared) -> NewTopic {
    NewTopic::named(name(shared))
        .partitions(PARTITIONS)
        .replication_factor(shared.plan.replication)
        .config("cleanup.policy", "compact")
        .config("segment.bytes", "65536")
        .config("segment.ms", "3000")
        .config("min.cleanable.dirty.ratio", "0.1")
        // Longer than any reader takes from the beginning to the end.
        .config("delete.retention.ms", "60000")
}

/// Its name and its partitions.
pub(super) fn named(shared: &Shared) -> (String, u32) {
    (name(shared), PARTITIONS)
}

/// Says in the history what is compacted.
pub(super) fn declare(shared: &Shared) {
    for place in places(shared) {
        let compacted = Action::Compacted {
            key: place.key,
            keys: u32::try_from(KEYS).unwrap_or(u32::MAX),
            tombstones: u32::try_from(TOMBSTONES).unwrap_or(u32::MAX),
        };
        let process = record_one(shared, Function::Compacted, compacted);
        let recorder = &shared.recorder;
        recorder.complete(Kind::Ok, process, Function::Compacted, vec![compacted]);
    }
}

pub(super) fn places(shared: &Shared) -> Vec<Place> {
    let place = |partition| Place {
        topic: name(shared),
        partition,
        key: key(shared, COMPACTED + partition),
        decode: value_of,
    };
    (0..PARTITIONS).map(place).collect()
}

const fn is_tombstone(value: i64) -> bool {
    value.div_euclid(KEYS).rem_euclid(TOMBSTONES) == 0
}

/// What is not as it was sent becomes a value that nobody sent.
fn value_of(record: &ConsumedRecord) -> Value {
    let phantom = Value(-1 - i64::try_from(record.offset.0).unwrap_or(0));
    let header = record.header(HEADER).map(AsRef::as_ref);
    let Some(value) = header.and_then(|bytes: &[u8]| bytes.try_into().ok()) else {
        return phantom;
    };
    let value = i64::from_be_bytes(value);
    let key = record.key.as_deref();
    let right_key = key == Some(key_of(value).as_bytes());
    let right = match &record.value {
        None => is_tombstone(value),
        Some(bytes) => {
            !is_tombstone(value)
                && body::decode(Some(bytes), Offset(record.offset.0)) == Value(value)
        }
    };
    if right && right_key {
        Value(value)
    } else {
        phantom
    }
}

fn key_of(value: i64) -> String {
    format!("key-{}", value.rem_euclid(KEYS))
}

/// Writes to one partition until `stop`.
pub(super) async fn produce(
    shared: Arc<Shared>,
    partition: u32,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut random = shared.random(u64::from(partition) + 41_000);
    let client = shared.client("compacted-producer")?;
    let mut sender = Sender::new(&shared, &client);
    let mut pace = Pace::new(RATE);
    while pace.wait(&mut random, &stop).await {
        let value = sender.fresh().0 * KEYS + random.random_range(0..KEYS);
        let mut record = ProducerRecord::to(name(&shared))
            .partition(partition)
            .key(key_of(value))
            .header(HEADER, value.to_be_bytes().to_vec());
        if !is_tombstone(value) {
            let filling = random.random_range(100..4_000);
            record = record.value(body::encode(Value(value), filling));
        }
        let place = key(&shared, COMPACTED + partition);
        sender.send(place, Value(value), record).await;
    }
    Ok(())
}
