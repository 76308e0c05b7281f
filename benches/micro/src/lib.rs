//! What the micro benches of codec, log, segment, index and state machine share.

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::{BatchSequence, PartitionId, ProducerEpoch, ProducerId, TimestampMs};
use highwater_proto::{TopicId, TopicPartition};

/// A partition of the one topic of a bench.
#[must_use]
pub fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(1), PartitionId(partition))
}

/// A batch of one record with a key of 16 bytes and a value of `bytes` bytes, numbered for an idempotent
/// producer.
///
/// # Panics
/// When the record does not fit into a batch.
#[must_use]
pub fn batch(producer: u64, sequence: u32, time: i64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(producer),
        ProducerEpoch(0),
        BatchSequence(sequence),
    );
    let value = vec![b'x'; bytes];
    builder
        .append(
            TimestampMs(time),
            Some(b"order-0000012345"),
            Some(&value),
            [],
        )
        .expect("one record fits");
    builder.build()
}
