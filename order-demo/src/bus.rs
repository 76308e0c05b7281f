//! The little that the workload needs of an event broker. `client_bus` implements it over the
//! Highwater client; tests implement it in memory.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::Stream;

use crate::evidence::Observed;
use crate::order::Source;

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// On the disks of a majority, at this place.
    Acknowledged(Source),
    /// Certainly not written; why.
    Refused(String),
    /// May or may not be written; why.
    Unknown(String),
}

/// Who serves a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The partition.
    pub partition: u32,
    /// Partitions of one shard share their leader.
    pub shard: u32,
    /// The leading broker; none during an election.
    pub leader: Option<u32>,
}

/// A broker as the workload sees it. Clones share everything.
pub trait Bus: Clone + Send + Sync + 'static {
    /// Sends records.
    type Sender: Sender;
    /// Records of several partitions, each in offset order; ends only by an error.
    type Records: Stream<Item = anyhow::Result<Observed>> + Send + Unpin + 'static;

    /// Creates a topic and returns when it can be written to.
    fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        replication: u32,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A new idempotent producer.
    fn sender(&self) -> Self::Sender;

    /// Reads each partition named from its offset on; from the leaders, or from one broker's own
    /// copies.
    fn read(
        &self,
        topic: &str,
        from: &BTreeMap<u32, u64>,
        broker: Option<u32>,
    ) -> impl Future<Output = anyhow::Result<Self::Records>> + Send;

    /// The end of every partition: past everything acknowledged before the call.
    fn ends(&self, topic: &str) -> impl Future<Output = anyhow::Result<BTreeMap<u32, u64>>> + Send;

    /// Who leads each partition now, as far as known.
    fn placement(&self, topic: &str)
    -> impl Future<Output = anyhow::Result<Vec<Placement>>> + Send;
}

/// An idempotent producer: records of one key keep their order, each is stored once.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Resolves when the send has ended, at the delivery timeout at the latest.
    type Ended: Future<Output = Outcome> + Send + Unpin + 'static;

    /// Takes a record over; waits while too much is in flight. The order of calls is the order
    /// of records.
    fn enqueue(
        &self,
        topic: &str,
        key: String,
        value: Vec<u8>,
        traceparent: String,
    ) -> impl Future<Output = Result<Self::Ended, Outcome>> + Send;
}
