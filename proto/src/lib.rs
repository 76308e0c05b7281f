//! Words on the wire: ids and units, record batches, gRPC services, error codes.
//!
//! This crate is shared by clients and brokers. It does no I/O and reads no clock.

pub mod batch;
pub mod codec;
pub mod ids;
pub mod partitioner;
mod payload;

pub use ids::{
    BatchSequence, ByteSize, LeaderEpoch, NodeId, Offset, PartitionId, ProducerEpoch, ProducerId,
    ShardId, TimestampMs, TopicId, TopicPartition,
};
pub use partitioner::{murmur2, partition_for_key};
pub use payload::{Payload, PayloadReader, PayloadTooShort};

/// The public gRPC protocol, `highwater.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("highwater.v1");
}

/// What brokers say to each other, `highwater.internal.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod internal {
    tonic::include_proto!("highwater.internal.v1");
}

/// The encoded `FileDescriptorSet` of both packages.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
