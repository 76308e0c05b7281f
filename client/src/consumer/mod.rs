//! The consumer: a `Stream` of the records of partitions that are assigned to it by hand.

mod builder;
mod lane;
mod part;
mod reader;
mod shared;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use highwater_proto::batch::{DecodeLimits, RecordIter};
use highwater_proto::{Offset, PartitionId, TimestampMs, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::builder::ConsumerBuilder;
use self::builder::resolve;
use self::part::Chunk;
pub use self::part::OutOfRange;
pub use self::shared::ReadFrom;
pub(crate) use self::shared::{ConsumerConfig, Shared};
use crate::client::Client;
use crate::error::{Cause, ConsumeError};
use crate::record::ConsumedRecord;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The first record kept.
    #[default]
    Earliest,
    /// Only records acknowledged from now on.
    Latest,
    /// This offset.
    Offset(Offset),
    /// So many offsets after the first record kept.
    AfterEarliest(u64),
    /// So many offsets before the end, but not before the first record kept.
    BeforeLatest(u64),
    /// The first record whose timestamp is at or after this.
    Time(TimestampMs),
}

/// Reads records: a `Stream` that never ends. After an error of one partition the others go on;
/// that partition stands still until [`Consumer::seek`].
///
/// Records of one partition come in offset order, each once, whatever leaders do. Every batch's
/// checksum is verified. Polling is cancellation-safe: a record that was not handed out comes
/// next time.
pub struct Consumer {
    client: Client,
    shared: Arc<Shared>,
    topics: BTreeMap<Arc<str>, highwater_proto::TopicId>,
    decoding: Option<(Chunk, Option<(RecordIter, Offset)>)>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

impl Consumer {
    /// A consumer whose partitions are assigned later, through what it shares.
    pub(crate) fn unassigned(client: &Client, config: ConsumerConfig) -> (Self, Arc<Shared>) {
        let cluster = Arc::clone(&client.inner.cluster);
        let shared = Arc::new(Shared::new(cluster, config));
        let mut tasks = JoinSet::new();
        tasks.spawn(shared::keep(Arc::clone(&shared)));
        let consumer = Self {
            client: client.clone(),
            shared: Arc::clone(&shared),
            topics: BTreeMap::new(),
            decoding: None,
            _tasks: tasks,
        };
        (consumer, shared)
    }

    fn partition(&self, topic: &str, partition: u32) -> Result<TopicPartition, ConsumeError> {
        let tp = self
            .topics
            .get(topic)
            .map(|&id| TopicPartition::new(id, PartitionId(partition)));
        tp.filter(|&tp| self.shared.read(|reader, _| reader.assigned(tp)))
            .ok_or_else(|| ConsumeError::NotAssigned {
                topic: topic.to_owned(),
                partition,
            })
    }

    /// Goes on at another place, also after an error. Cancellation-safe: either it took place or
    /// it did not.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`]; [`ConsumeError::Offsets`] when the start is a rule and no
    /// leader answered.
    pub async fn seek(&self, topic: &str, partition: u32, to: Start) -> Result<(), ConsumeError> {
        let tp = self.partition(topic, partition)?;
        let offset = match to {
            Start::Offset(offset) => offset,
            rule => {
                let deadline = Instant::now() + self.client.inner.request_timeout;
                let cluster = &self.client.inner.cluster;
                let found = resolve(cluster, topic, &[tp.partition], rule, deadline).await?;
                found.first().copied().unwrap_or_default()
            }
        };
        self.shared.act(|reader, _| reader.seek(tp, offset.0));
        Ok(())
    }
    /// Hands out nothing more of this partition until [`Consumer::resume`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let tp = self.partition(topic, partition)?;
        self.shared.act(|reader, _| reader.set_paused(tp, true));
        Ok(())
    }
    /// Goes on where [`Consumer::pause`] stopped.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let tp = self.partition(topic, partition)?;
        self.shared.act(|reader, _| reader.set_paused(tp, false));
        Ok(())
    }
    /// The offset of the next record to be handed out.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        let tp = self.partition(topic, partition).ok()?;
        self.shared
            .read(|reader, _| reader.position(tp))
            .map(Offset)
    }
    /// The first offset not yet visible, as the broker said last; absent before its first answer.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<Offset> {
        let tp = self.partition(topic, partition).ok()?;
        self.shared
            .read(|reader, _| reader.high_watermark(tp))
            .map(Offset)
    }
    /// The first offset kept, as the broker said last; absent before its first answer.
    #[must_use]
    pub fn log_start(&self, topic: &str, partition: u32) -> Option<Offset> {
        let tp = self.partition(topic, partition).ok()?;
        self.shared
            .read(|reader, _| reader.log_start(tp))
            .map(Offset)
    }
    /// Topics and partitions assigned, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, PartitionId)> {
        let partitions: Vec<_> = self.shared.read(|reader, _| reader.partitions().collect());
        let by_id: BTreeMap<_, _> = self.topics.iter().map(|(name, id)| (*id, name)).collect();
        let named = |tp: TopicPartition| Some((Arc::clone(by_id.get(&tp.topic)?), tp.partition));
        partitions.into_iter().filter_map(named).collect()
    }

    /// The next record of the chunk at hand; `None` when it is used up.
    fn next_decoded(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        let shared = Arc::clone(&self.shared);
        let (chunk, current) = self.decoding.as_mut()?;
        loop {
            // A seek while the chunk was at hand makes the rest of it void.
            let position = shared.read(|reader, _| reader.position_in(chunk))?;
            if let Some((records, end)) = current {
                match records.next() {
                    Some(Ok(record)) if record.offset.0 < position => continue,
                    Some(Ok(record)) => {
                        shared.read(|reader, _| reader.advance(chunk, record.offset.plus(1)));
                        return Some(Ok(consumed(chunk, record)));
                    }
                    Some(Err(error)) => return broken(&shared, chunk, &error.to_string()),
                    None => {
                        let end = *end;
                        shared.read(|reader, _| reader.advance(chunk, end));
                        *current = None;
                    }
                }
                continue;
            }
            let batch = chunk.batches.pop_front()?;
            let end = batch.header().next_offset();
            // Markers of transactions are not records, but they take offsets.
            if end.0 <= position || batch.header().attributes.is_control() {
                shared.read(|reader, _| reader.advance(chunk, end));
                continue;
            }
            match batch.records(&DecodeLimits::default()) {
                Ok(records) => *current = Some((records, end)),
                Err(error) => return broken(&shared, chunk, &error.to_string()),
            }
        }
    }
}

/// The checksum is right and the records are not: no other replica will have better ones.
fn broken<T>(shared: &Shared, chunk: &Chunk, what: &str) -> Option<T> {
    let cause = Cause::Encoding(format!("a batch cannot be decoded: {what}"));
    shared.act(|reader, _| reader.halt_and_drop(chunk.tp, cause));
    None
}

fn consumed(chunk: &Chunk, record: highwater_proto::batch::Record) -> ConsumedRecord {
    let text = |key: bytes::Bytes| String::from_utf8_lossy(&key).into_owned();
    ConsumedRecord {
        topic: Arc::clone(&chunk.topic),
        partition: chunk.tp.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(key, value)| (text(key), value))
            .collect(),
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.decoding.is_some() {
                if let Some(item) = self.next_decoded() {
                    return Poll::Ready(Some(item));
                }
                if let Some((chunk, _)) = self.decoding.take()
                    && self.shared.read(|reader, _| reader.finished(&chunk))
                {
                    self.shared.kick();
                }
            }
            // Registered before looking, so that what comes in between wakes this task.
            self.shared.waker.register(context.waker());
            let (error, chunk) = self
                .shared
                .read(|reader, _| (reader.next_error(), reader.next_chunk()));
            match (error, chunk) {
                (Some(error), chunk) => {
                    self.decoding = chunk.map(|chunk| (chunk, None));
                    return Poll::Ready(Some(Err(error)));
                }
                (None, Some(chunk)) => self.decoding = Some((chunk, None)),
                (None, None) => return Poll::Pending,
            }
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}
