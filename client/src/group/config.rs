//! Settings of a group's member.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use highwater_proto::{PartitionId, v1};

use super::policy::RetryPolicy;
use super::shared::Shared;
use super::stream::GroupConsumer;
use super::worker::{Chunk, GroupWorker, Handler};
use super::{GroupError, HandlerError};
use crate::client::Client;
use crate::consumer::{ConsumerConfig, OutOfRange, ReadFrom};
use crate::error::{Cause, ErrorCode};

/// Where a partition begins of which the group has not committed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupStart {
    /// The first record kept.
    #[default]
    Earliest,
    /// Only records acknowledged after the partition was assigned.
    Latest,
}

/// When records count as finished, for [`GroupConsumer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// A record is finished when the next one is asked for.
    #[default]
    Auto,
    /// A record is finished by [`GroupRecord::done`](super::GroupRecord::done).
    Explicit,
}

/// What is handled in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// Records of a key; keys side by side. Records without a key (or with an empty one) have no
    /// order.
    #[default]
    Key,
    /// Records of a partition; partitions side by side.
    Partition,
}

/// Why partitions went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeReason {
    /// Others take them over. What was finished is committed after the hook.
    Moved,
    /// This member leaves.
    Leaving,
    /// The session was lost: others may be working on them already, nothing can be committed.
    Lost,
}

/// A partition by the topic's name.
pub type NamedPartition = (Arc<str>, PartitionId);

type AssignedHook = Arc<dyn Fn(Vec<NamedPartition>) -> BoxFuture<'static, ()> + Send + Sync>;
type RevokedHook =
    Arc<dyn Fn(Vec<NamedPartition>, RevokeReason) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct GroupConfig {
    pub group: Arc<str>,
    pub member_id: String,
    pub instance_id: String,
    pub rack: String,
    pub topics: Vec<String>,
    pub pattern: String,
    pub strategy: v1::AssignmentStrategy,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub commit_interval: Duration,
    pub leave_timeout: Duration,
    pub start: GroupStart,
    pub mode: CommitMode,
    pub ordering: Ordering,
    pub retry: RetryPolicy,
    pub parallelism: usize,
    pub in_flight_bytes: usize,
    pub in_flight_records: usize,
    pub credit_bytes: u64,
    pub assigned: Option<AssignedHook>,
    pub revoked: Option<RevokedHook>,
}

/// Settings of a member of a consumer group; see [`Client::group`].
#[derive(Clone)]
pub struct GroupBuilder {
    client: Client,
    config: GroupConfig,
}

impl GroupBuilder {
    pub(crate) fn new(client: Client, group: String) -> Self {
        let random = |()| client.inner.cluster.random();
        let member_id = format!("m-{:016x}{:016x}", random(()), random(()));
        let config = GroupConfig {
            group: Arc::from(group),
            member_id,
            instance_id: String::new(),
            rack: String::new(),
            topics: Vec::new(),
            pattern: String::new(),
            strategy: v1::AssignmentStrategy::Sticky,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            commit_interval: Duration::from_secs(1),
            leave_timeout: Duration::from_secs(30),
            start: GroupStart::default(),
            mode: CommitMode::default(),
            ordering: Ordering::default(),
            retry: RetryPolicy::default(),
            parallelism: 16,
            in_flight_bytes: 16 << 20,
            in_flight_records: 10_000,
            credit_bytes: 8 << 20,
            assigned: None,
            revoked: None,
        };
        Self { client, config }
    }
    /// Subscribes to a topic; it need not exist yet. May be repeated.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.config.topics.push(topic.into());
        self
    }
    /// Subscribes to several topics.
    #[must_use]
    pub fn topics<S: Into<String>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        self.config
            .topics
            .extend(topics.into_iter().map(Into::into));
        self
    }
    /// Subscribes to every topic whose whole name the regular expression matches, also to those
    /// that are created later.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        self.config.pattern = pattern.into();
        self
    }
    /// Where partitions begin of which nothing was committed. Default: the first record kept.
    #[must_use]
    pub fn start_at(mut self, start: GroupStart) -> Self {
        self.config.start = start;
        self
    }
    /// How partitions are shared out. Default: sticky and balanced.
    #[must_use]
    pub fn strategy(mut self, strategy: v1::AssignmentStrategy) -> Self {
        self.config.strategy = strategy;
        self
    }
    /// A name for this process that outlives it: when it comes back within the session timeout it
    /// has its partitions again, without a rebalance. Stopping it does not leave the group.
    #[must_use]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.instance_id = id.into();
        self
    }
    /// Where this process runs, by the brokers' names of racks.
    #[must_use]
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.config.rack = rack.into();
        self
    }
    /// After so long without a heartbeat others take over. Default 45 s, at least 1 s. Heartbeats
    /// go on whatever handlers do, so this is about processes that died, not about slow ones.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout.max(Duration::from_secs(1));
        self
    }
    /// How long a handler may take to finish the record at hand when its partition moves. Default
    /// 60 s; then the partition goes all the same, and another member handles the record too.
    #[must_use]
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.config.rebalance_timeout = timeout.max(Duration::from_secs(1));
        self
    }
    /// How often what is finished is committed, in one call for all partitions. Default 1 s.
    #[must_use]
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.config.commit_interval = interval.max(Duration::from_millis(1));
        self
    }
    /// How long a graceful stop waits for handlers. Default 30 s.
    #[must_use]
    pub fn leave_timeout(mut self, timeout: Duration) -> Self {
        self.config.leave_timeout = timeout;
        self
    }
    /// When records of a [`GroupConsumer`] count as finished. Default: [`CommitMode::Auto`].
    #[must_use]
    pub fn commit_mode(mut self, mode: CommitMode) -> Self {
        self.config.mode = mode;
        self
    }
    /// What [`GroupBuilder::run`] keeps in order. Default: each key.
    #[must_use]
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.config.ordering = ordering;
        self
    }
    /// Handlers at work at the same time, for [`GroupBuilder::run`]. Default 16.
    #[must_use]
    pub fn parallelism(mut self, handlers: usize) -> Self {
        self.config.parallelism = handlers.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }
    /// Retries and what comes after them, for [`GroupBuilder::run`].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.config.retry = policy;
        self
    }
    /// Bytes of records that were handed out and are not finished; beyond it nothing more is
    /// handed out. Default 16 MiB; one record may come on top.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.config.in_flight_bytes = bytes.max(1);
        self
    }
    /// Bytes that each broker may send ahead. Default 8 MiB.
    #[must_use]
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.config.credit_bytes = bytes.max(1);
        self
    }
    /// Called with partitions that came, before the first record of theirs. One that panics is noted in the log,
    /// and the partitions are worked on all the same.
    #[must_use]
    pub fn on_assigned<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Vec<NamedPartition>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.config.assigned = Some(Arc::new(move |partitions| Box::pin(hook(partitions))));
        self
    }
    /// Called with partitions that go, when no handler works on them any more and before the last
    /// commit; after [`RevokeReason::Lost`] handlers may still be at work. One that panics is noted in the log, and
    /// the partitions go all the same.
    #[must_use]
    pub fn on_revoked<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Vec<NamedPartition>, RevokeReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.config.revoked = Some(Arc::new(move |partitions, reason| {
            Box::pin(hook(partitions, reason))
        }));
        self
    }

    /// Joins the group and hands out records as a `Stream`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`GroupError::Settings`].
    pub fn stream(self) -> Result<GroupConsumer, GroupError> {
        let (consumer, shared) = self.start(false)?;
        Ok(GroupConsumer::new(consumer, shared))
    }

    /// Joins the group and calls `handler` with each record: in parallel across keys, in order
    /// within a key, again after an error, as [`RetryPolicy`] says. Must be called within a tokio
    /// runtime.
    ///
    /// At least once: a record whose handler was called may come again, to this member or another,
    /// until the offset behind it is committed. What a handler does must bear that.
    ///
    /// # Errors
    /// [`GroupError::Settings`].
    pub fn run<F, Fut>(self, handler: F) -> Result<GroupWorker, GroupError>
    where
        F: Fn(super::GroupRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.run_chunks(1, move |records| {
            let handler = Arc::clone(&handler);
            async move {
                let mut chunk = Chunk::default();
                for record in records {
                    match handler(record).await {
                        Ok(()) => chunk.finished += 1,
                        Err(error) => return Chunk::failed(chunk.finished, error),
                    }
                }
                chunk
            }
        })
    }

    /// As [`GroupBuilder::run`], with up to `most` records of one key at a time, as many as wait. For
    /// handlers that do many as cheaply as one, as in one transaction: otherwise a key that is used
    /// much has to wait for one transaction per record.
    ///
    /// The handler takes the records in order and says how many it has finished. If that is not all,
    /// the next one has failed: it comes again, or goes to the dead letters, as [`RetryPolicy`] says,
    /// and the rest comes after it.
    ///
    /// # Errors
    /// [`GroupError::Settings`].
    pub fn run_chunks<F, Fut>(self, most: usize, handler: F) -> Result<GroupWorker, GroupError>
    where
        F: Fn(Vec<super::GroupRecord>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Chunk> + Send + 'static,
    {
        let client = self.client.clone();
        let handler: Handler = Arc::new(move |records| Box::pin(handler(records)));
        let (consumer, shared) = self.start(true)?;
        Ok(GroupWorker::start(
            &client,
            consumer,
            shared,
            (most.max(1), handler),
        ))
    }

    fn start(self, handlers: bool) -> Result<(crate::Consumer, Arc<Shared>), GroupError> {
        let mut config = self.config;
        if config.topics.is_empty() && config.pattern.is_empty() {
            return Err(GroupError::Settings("no topic is subscribed to".to_owned()));
        }
        if handlers && config.retry.dead_letters() {
            let name = super::redrive_topic(&config.group);
            if !is_topic_name(&name) {
                return Err(GroupError::Settings(format!(
                    "{name:?} is no topic name, so the group cannot have a dead letter queue"
                )));
            }
            config.topics.push(name);
        }
        let reading = ConsumerConfig {
            credit_bytes: config.credit_bytes,
            max_fetch_bytes: 1 << 20,
            read_from: ReadFrom::Leader,
            // What is kept behind a commit is handled, wherever partitions without one begin.
            out_of_range: OutOfRange::Earliest,
        };
        let (consumer, reader) = crate::Consumer::unassigned(&self.client, reading);
        let shared = Arc::new(Shared::new(&self.client, config, reader));
        Ok((consumer, shared))
    }
}

/// Kafka's rule for names of topics.
fn is_topic_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(plain)
}

/// Errors that joining again does not cure.
pub(super) fn is_final(cause: &Cause) -> bool {
    matches!(
        cause.code(),
        Some(
            ErrorCode::InvalidRequest
                | ErrorCode::InvalidGroupName
                | ErrorCode::InvalidSubscription
                | ErrorCode::FencedInstance
                | ErrorCode::GroupFull
                | ErrorCode::TooManyGroups
        )
    )
}

impl std::fmt::Debug for GroupBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupBuilder")
            .field("group", &self.config.group)
            .field("topics", &self.config.topics)
            .finish_non_exhaustive()
    }
}
