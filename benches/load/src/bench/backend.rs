//! What the generator needs of a broker, so that every broker is driven by the same loops.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;

/// Resolves when the record is acknowledged.
pub type Ack = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A record to be sent.
#[derive(Debug)]
pub struct Message {
    /// Records with equal keys stay in order; absent: the client chooses the partition.
    pub key: Option<Bytes>,
    /// The payload; its first eight bytes are the time it was meant to be sent.
    pub value: Bytes,
}

/// A record that was read.
#[derive(Debug)]
pub struct Received {
    /// The payload.
    pub value: Bytes,
}

/// One producer of one topic.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands a record over. May wait for room.
    ///
    /// # Errors
    /// The client's, when it refuses the record.
    async fn send(&self, message: Message) -> anyhow::Result<Ack>;
}

/// One consumer of some partitions of a topic.
#[async_trait]
pub trait Source: Send {
    /// Waits for records and appends what there is, a few hundred at the most.
    ///
    /// # Errors
    /// The client's, when reading cannot go on.
    async fn next(&mut self, into: &mut Vec<Received>) -> anyhow::Result<()>;
}

/// What a producer is to be like.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SinkSettings {
    /// Milliseconds that a batch waits for more; absent: the client's default.
    pub linger_ms: Option<f64>,
    /// Bytes of a full batch; absent: the client's default.
    pub batch_bytes: Option<usize>,
    /// Bytes that must find room in the client's buffer.
    pub buffer_bytes: usize,
}

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// A kind of broker.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Makes a topic with three replicas, and waits until it can be written to.
    ///
    /// # Errors
    /// The broker's.
    async fn create_topic(&self, topic: &TopicSpec) -> anyhow::Result<()>;
    /// A producer with connections of its own.
    ///
    /// # Errors
    /// The client's.
    async fn sink(&self, topic: &str, settings: SinkSettings) -> anyhow::Result<Box<dyn Sink>>;
    /// A consumer of these partitions, from the first record on.
    ///
    /// # Errors
    /// The client's.
    async fn source(&self, topic: &str, partitions: Vec<u32>) -> anyhow::Result<Box<dyn Source>>;
    /// The place (from 0) of the broker that leads a partition, to be killed; absent: unknown.
    ///
    /// # Errors
    /// The broker's.
    async fn leader(&self, _topic: &str, _partition: u32) -> anyhow::Result<Option<usize>> {
        Ok(None)
    }
}
