//! The Rust client: producer, consumer, admin, and the command line built on them.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use highwater_client::{Client, NewTopic, ProducerRecord};
//!
//! # async fn quick_start() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("highwater://localhost:9094").await?;
//! client.admin().create_topic(NewTopic::named("orders").partitions(6)).await?;
//!
//! // Idempotent: retries never store a record twice. The answer comes when a majority has the
//! // record on its disks.
//! let producer = client.producer().build();
//! let record = ProducerRecord::to("orders").key("order-1").value("3 lines");
//! let stored = producer.send(record).await?;
//! println!("partition {} offset {}", stored.partition, stored.offset);
//!
//! let mut consumer = client.consumer().topic("orders").build().await?;
//! while let Some(record) = consumer.next().await {
//!     let record = record?;
//!     println!("{} {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Did it happen?
//!
//! A write has one of three outcomes: acknowledged (with its offset), [`SendError::Rejected`]
//! (certainly not written) and [`SendError::Unknown`] (nobody could say before the deadline). The
//! producer repeats a batch under the same producer id, epoch and sequence as long as its
//! delivery timeout lasts, so `Unknown` is rare and means that no broker answered.
//!
//! # What runs where
//!
//! A [`Client`] keeps two metadata streams, at two brokers. A [`Producer`] has one ordered stream
//! to each broker that leads partitions it writes to, a [`Consumer`] one to each that it reads
//! from. All tasks end when their handle is dropped. Every call has a deadline.
//!
//! Each public `async fn` says whether dropping its future half-way is safe.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]

mod admin;
mod backoff;
pub mod cli;
mod client;
mod cluster;
mod connect;
mod connection_string;
mod consumer;
mod error;
pub mod group;
mod lifecycle;
mod offsets;
mod producer;
mod record;
pub mod resilience;
mod rpc;
mod topics;
mod trace;
mod view;

pub use admin::{Admin, NewTopic};
pub use client::{Client, ClientBuilder};
pub use connect::Io;
pub use connection_string::{ConnectionString, DEFAULT_PORT};
pub use consumer::{Consumer, ConsumerBuilder, OutOfRange, ReadFrom, Start};
pub use error::{
    AdminError, Cause, ConnectError, ConsumeError, ErrorCode, OffsetsError, SendError,
};
pub use highwater_proto::{NodeId, Offset, PartitionId, ShardId, TimestampMs, TopicId, v1};
pub use lifecycle::NewPlan;
pub use offsets::{At, FoundOffset};
pub use producer::{Ack, Compression, Producer, ProducerBuilder};
pub use record::{ConsumedRecord, Delivery, Headers, ProducerRecord};
pub use topics::TopicChange;
pub use trace::{TRACEPARENT, TraceParent};
pub use view::{BrokerView, ClusterView, PartitionView, TopicView};
