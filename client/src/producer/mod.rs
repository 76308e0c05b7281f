//! The producer: records in, offsets out; each record stored once, in order, or its error says
//! whether it may be stored.

mod accumulator;
mod encode;
mod inflight;
mod lane;
mod machine;
mod shared;
mod verdict;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

pub use highwater_proto::batch::Compression;
use highwater_proto::{PartitionId, TimestampMs, TopicPartition, partition_for_key};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::client::Client;
use crate::cluster::Timings;
use crate::error::{Cause, SendError};
use crate::record::{Delivery, ProducerRecord};
use crate::view::TopicView;
use machine::Rules;
use shared::{Pending, Shared};

/// The largest batch of a topic that does not say otherwise, in bytes.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1 << 20;
/// What a batch adds to its records, in bytes.
const BATCH_OVERHEAD_BYTES: usize = 61;

#[derive(Debug, Clone)]
pub(crate) struct ProducerConfig {
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    max_request_bytes: usize,
    compression: Compression,
    delivery_timeout: Duration,
}

impl ProducerConfig {
    fn rules(&self, timings: &Timings, seed: u64) -> Rules {
        Rules {
            linger: self.linger,
            batch_bytes: self.batch_bytes,
            delivery_timeout: self.delivery_timeout,
            retry_first: timings.retry_first,
            retry_most: timings.retry_most,
            seed,
        }
    }
}

/// Settings of a [`Producer`].
#[derive(Debug)]
pub struct ProducerBuilder {
    client: Client,
    config: ProducerConfig,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let config = ProducerConfig {
            linger: Duration::from_millis(2),
            batch_bytes: 256 << 10,
            buffer_bytes: 32 << 20,
            max_request_bytes: 1 << 20,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(30),
        };
        Self { client, config }
    }
    /// How long a batch waits for more records. Default 2 ms. A partition whose five batches are
    /// all in flight lets the next one grow beyond it.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }
    /// When a batch is full, in bytes before compression. Default 256 KiB. A topic's
    /// `max.message.bytes` lowers it.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch_bytes = bytes.max(1);
        self
    }
    /// Bytes of records without an outcome; beyond it [`Producer::enqueue`] waits. Default 32 MiB.
    /// Encoded batches in flight come on top, up to as much again.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.config.buffer_bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        self
    }
    /// Compression of batches. Default none.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }
    /// From [`Producer::enqueue`] to the outcome at the latest. Default 30 s.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }
    /// Starts the producer. Its id is fetched in the background. Must be called within a tokio
    /// runtime.
    #[must_use]
    pub fn build(self) -> Producer {
        let cluster = Arc::clone(&self.client.inner.cluster);
        let shared = Arc::new(Shared::new(cluster, self.config));
        let mut tasks = JoinSet::new();
        tasks.spawn(shared::keep(Arc::clone(&shared)));
        let closed = AtomicBool::new(false);
        let handle = Handle {
            client: self.client,
            shared,
            closed,
            _tasks: tasks,
        };
        Producer {
            handle: Arc::new(handle),
        }
    }
}

/// Sends records. Cheap to clone; clones share buffer, connections and producer id.
///
/// Idempotent: a batch is sent again under the same id and sequence until the cluster says where
/// it is stored, and is stored once. Records of one partition are stored in the order in which
/// [`Producer::enqueue`] returned.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    client: Client,
    shared: Arc<Shared>,
    closed: AtomicBool,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared
            .act(|machine, now| machine.abandon(&Cause::Closed, now));
    }
}

/// The outcome of one record, to be awaited. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "the record's outcome is lost"]
pub struct Ack {
    answer: oneshot::Receiver<Result<Delivery, SendError>>,
}

impl Future for Ack {
    type Output = Result<Delivery, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(SendError::Unknown(Cause::Closed))))
    }
}

impl Producer {
    /// Hands a record over: waits until the topic is known and the buffer has room, and answers
    /// with what awaits the outcome.
    ///
    /// Cancellation-safe: dropped before it returned, the record was not handed over.
    ///
    /// # Errors
    /// [`SendError::Rejected`]: unknown topic or partition, a record that is too large, a buffer
    /// that stayed full, a closed producer.
    pub async fn enqueue(&self, mut record: ProducerRecord) -> Result<Ack, SendError> {
        let shared = &self.handle.shared;
        let since = shared.now();
        let deadline = shared.instant(since) + shared.config.delivery_timeout;
        let size = record.size_bytes();
        let topic = shared
            .cluster
            .topic(&record.topic, deadline)
            .await
            .map_err(SendError::Rejected)?;
        let limit = topic
            .max_message_bytes()
            .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
        let most = shared
            .config
            .buffer_bytes
            .min(limit.saturating_sub(BATCH_OVERHEAD_BYTES));
        if size > most {
            let cause = Cause::RecordTooLarge {
                bytes: size,
                limit: most,
            };
            return Err(SendError::Rejected(cause));
        }
        check_partition(&topic, record.partition)?;
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&shared.buffer).acquire_many_owned(permits);
        let permit = match timeout_at(deadline, waiting).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(SendError::Rejected(Cause::Closed)),
            Err(_) => {
                let cause = Cause::Deadline("the producer's buffer stayed full".to_owned());
                return Err(SendError::Rejected(cause));
            }
        };
        if self.handle.closed.load(Ordering::Acquire) {
            return Err(SendError::Rejected(Cause::Closed));
        }
        let timestamp = record
            .timestamp
            .unwrap_or_else(|| TimestampMs((self.handle.client.inner.wall_clock)()));
        let given = match (record.partition, &record.key) {
            (Some(partition), _) => Some(partition),
            (None, Some(key)) => Some(partition_for_key(key, topic.partition_count())),
            (None, None) => None,
        };
        record.topic = String::new(); // the batch knows it
        let (ack, answer) = oneshot::channel();
        shared.act(|machine, now| {
            let partition = given.unwrap_or_else(|| shared.sticky(&topic, machine));
            let tp = TopicPartition::new(topic.id, partition);
            let pending = Pending {
                record,
                timestamp,
                tp,
                ack,
                _permit: permit,
            };
            shared::tell(machine, &shared.cluster.view(), tp, now);
            let closed = machine.append(tp, pending, (size, limit), (since, now));
            if closed && given.is_none() {
                shared.next_sticky(topic.id);
            }
        });
        Ok(Ack { answer })
    }

    /// Hands a record over and awaits its outcome.
    ///
    /// Dropped before it returned, the record may or may not be sent; use [`Producer::enqueue`]
    /// where that matters.
    ///
    /// # Errors
    /// [`SendError`]: it says whether the record may be stored.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        self.enqueue(record).await?.await
    }

    /// Sends what is buffered without lingering, and waits until everything handed over before
    /// has its outcome, which the delivery timeout bounds. Cancellation-safe.
    pub async fn flush(&self) {
        let shared = &self.handle.shared;
        let mark = shared.act(|machine, now| machine.flush(now));
        loop {
            let resolved = shared.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            if shared.quietly(|machine, _| machine.lowest_unresolved()) >= mark {
                return;
            }
            resolved.await;
        }
    }

    /// Refuses further records, also from clones, and waits for the outcome of those handed over.
    /// Cancellation-safe: what is left is given up when the last clone is dropped.
    pub async fn close(self) {
        self.handle.closed.store(true, Ordering::Release);
        loop {
            self.flush().await;
            if self.handle.shared.quietly(|machine, _| machine.is_idle()) {
                return;
            }
        }
    }

    /// Bytes of the buffer that are free.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.handle.shared.buffer.available_permits()
    }
}

fn check_partition(topic: &TopicView, partition: Option<PartitionId>) -> Result<(), SendError> {
    let partitions = topic.partition_count();
    let partition = partition.unwrap_or_default();
    if partition.0 < partitions {
        return Ok(());
    }
    Err(SendError::Rejected(Cause::UnknownPartition {
        topic: topic.name.to_string(),
        partition: partition.0,
        partitions,
    }))
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("free_bytes", &self.free_bytes())
            .finish_non_exhaustive()
    }
}
