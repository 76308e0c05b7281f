//! A member that calls a handler: keys side by side, in order within a key, retries, dead letters.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use highwater_proto::{Offset, PartitionId, TimestampMs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::config::NamedPartition;
use super::dead_letter::DeadLetters;
use super::policy::{Decision, HandlerError};
use super::shared::Shared;
use super::state::{Job, Next, Outcome};
use super::{GroupError, GroupRecord, reconcile, stream};
use crate::client::Client;
use crate::consumer::Consumer;
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

pub(super) type Handler =
    Arc<dyn Fn(GroupRecord) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// How long a partition that cannot be read stands still before it is tried again.
const UNREADABLE: Duration = Duration::from_secs(5);

/// A member of a group at work; made by [`GroupBuilder::run`](super::GroupBuilder::run).
///
/// Dropped without [`GroupWorker::stop`], it dies as in a crash: handlers are cancelled, and others
/// take over when the session is over, from the last commit on.
pub struct GroupWorker {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<GroupError>>,
    _tasks: JoinSet<()>,
}

impl GroupWorker {
    pub(super) fn start(
        client: &Client,
        consumer: Consumer,
        shared: Arc<Shared>,
        handler: Handler,
    ) -> Self {
        let (ended, receiver) = watch::channel(None);
        let mut tasks = stream::tasks(&shared);
        let crew = Crew {
            places: Semaphore::new(shared.config.parallelism),
            letters: DeadLetters::new(client, &shared.config.group),
            shared: Arc::clone(&shared),
            handler,
        };
        tasks.spawn(pump(Arc::new(crew), consumer, ended));
        Self {
            shared,
            ended: receiver,
            _tasks: tasks,
        }
    }

    /// Begins no further record, waits for handlers at work (for the leave timeout at the most),
    /// commits what is finished in one call, and leaves the group, so that others take over at
    /// once.
    ///
    /// Dropped before it returned, it ends as in a crash.
    ///
    /// # Errors
    /// [`GroupError::Commit`]: what was finished may be handled again; [`GroupError::Ended`]: the
    /// membership had ended before.
    pub async fn stop(self) -> Result<(), GroupError> {
        reconcile::leave(&self.shared).await
    }

    /// Waits until the membership ends for good, by itself. Cancellation-safe.
    pub async fn ended(&mut self) -> GroupError {
        let ended = self.ended.wait_for(Option::is_some).await;
        let error = ended.ok().and_then(|ended| ended.clone());
        error.unwrap_or(GroupError::Closed)
    }

    /// Topics and partitions that are worked on now.
    #[must_use]
    pub fn assignment(&self) -> Vec<NamedPartition> {
        self.shared.assignment()
    }
    /// Begins nothing more of this partition that is not fetched yet, until
    /// [`GroupWorker::resume`]. Heartbeats and commits go on.
    pub fn pause(&self, topic: &str, partition: u32) {
        let name = (Arc::from(topic), PartitionId(partition));
        self.shared.set_paused(Some(name), true);
    }
    /// Goes on with a partition.
    pub fn resume(&self, topic: &str, partition: u32) {
        let name = (Arc::from(topic), PartitionId(partition));
        self.shared.set_paused(Some(name), false);
    }
    /// The same as [`GroupWorker::pause`], for all partitions.
    pub fn pause_all(&self) {
        self.shared.set_paused(None, true);
    }
    /// Goes on with every partition.
    pub fn resume_all(&self) {
        self.shared.set_paused(None, false);
    }
}

impl std::fmt::Debug for GroupWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupWorker")
            .field("group", &self.shared.config.group)
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

/// What every lane needs.
struct Crew {
    shared: Arc<Shared>,
    handler: Handler,
    /// Handlers at work at the same time.
    places: Semaphore,
    letters: DeadLetters,
}

async fn pump(crew: Arc<Crew>, mut consumer: Consumer, ended: watch::Sender<Option<GroupError>>) {
    let shared = Arc::clone(&crew.shared);
    let mut lanes = JoinSet::new();
    loop {
        let next = tokio::select! {
            biased;
            Some(_) = lanes.join_next() => continue,
            next = poll_fn(|context| shared.poll_next(&mut consumer, true, context)) => next,
        };
        match next {
            Next::Job(job) => {
                lanes.spawn(lane(Arc::clone(&crew), job));
            }
            Next::Trouble(error) => {
                tracing::error!(group = &*shared.config.group, %error, "a partition stands still");
                lanes.spawn(try_again(Arc::clone(&shared), error));
            }
            Next::Stopped => break,
            Next::Ended(error) => {
                let _ = ended.send(Some(error));
                break;
            }
        }
    }
    // Handlers at work finish, unless the worker is dropped.
    while lanes.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

/// Reads on where the partition could not be read, after a while.
async fn try_again(shared: Arc<Shared>, error: ConsumeError) {
    let ConsumeError::Partition {
        topic,
        partition,
        offset,
        ..
    } = error
    else {
        return;
    };
    sleep(UNREADABLE).await;
    let state = shared.state();
    let name = (Arc::from(topic), PartitionId(partition));
    if let Some(&tp) = state.names.get(&name) {
        shared.reader.act(|reader, _| {
            if reader.position(tp) == Some(offset) {
                reader.seek(tp, offset);
            }
        });
    }
}

/// Handles a lane's jobs, one after the other, until it is empty.
async fn lane(crew: Arc<Crew>, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        let outcome = crew.work(&job).await;
        next = crew.shared.settle(job.ticket, Some(&job.lane), outcome);
    }
}

impl Crew {
    async fn work(&self, job: &Job) -> Outcome {
        let shared = &self.shared;
        let key = job.record.key.clone().filter(|key| !key.is_empty());
        if let Some(key) = &key
            && shared
                .state()
                .parked
                .contains(&(job.ticket.tp, key.clone()))
        {
            return self
                .dead_letter(job, 0, "an earlier record of its key is parked")
                .await;
        }
        let mut attempt: u32 = 0;
        let mut blocked = false;
        let outcome = loop {
            attempt = attempt.saturating_add(1);
            let place = tokio::select! {
                place = self.places.acquire() => place,
                () = job.cancel.cancelled() => break Outcome::Abandoned,
            };
            let handled = self.handle(job, attempt).await;
            drop(place);
            let Err(error) = handled else {
                break Outcome::Finished;
            };
            let random = shared.client.inner.cluster.random();
            let ConsumedRecord {
                topic,
                partition,
                offset,
                ..
            } = &job.record;
            let decision = shared.config.retry.decide(attempt, &error, random);
            tracing::warn!(
                group = &*shared.config.group, %topic, %partition, %offset, attempt, %error,
                ?decision, "a handler failed"
            );
            let pause = match decision {
                Decision::Retry(pause) => pause,
                Decision::Skip => break Outcome::Finished,
                Decision::DeadLetter => {
                    break self.dead_letter(job, attempt, &error.to_string()).await;
                }
                Decision::Block(pause) => {
                    // Each time: another key of the partition may have let it go on.
                    shared.set_blocked(job.ticket.tp, true);
                    blocked = true;
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = job.cancel.cancelled() => break Outcome::Abandoned,
            }
        };
        if blocked {
            shared.set_blocked(job.ticket.tp, false);
        }
        outcome
    }

    async fn handle(&self, job: &Job, attempt: u32) -> Result<(), HandlerError> {
        let record = GroupRecord {
            record: job.record.clone(),
            attempt,
            redriven: job.redriven,
            receipt: None,
        };
        let handler = &self.handler;
        // A handler that panics must not take its lane with it.
        match AssertUnwindSafe(async { handler(record).await })
            .catch_unwind()
            .await
        {
            Ok(outcome) => outcome,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(ToString::to_string);
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                let text = text.unwrap_or_else(|| "no message".to_owned());
                Err(HandlerError::retryable(format!(
                    "the handler panicked: {text}"
                )))
            }
        }
    }

    /// Puts the record into the dead letter queue. Its key counts as parked from now on.
    async fn dead_letter(&self, job: &Job, attempts: u32, error: &str) -> Outcome {
        tokio::select! {
            // Its acknowledgement may be lost: then it is there twice, and counts once.
            () = self.letters.put(job.origin, &job.record, attempts, error) => {
                let key = job.record.key.clone().unwrap_or_default();
                Outcome::DeadLettered(key)
            }
            () = job.cancel.cancelled() => Outcome::Abandoned,
        }
    }
}

/// What is left of a record that was taken out.
pub(super) fn empty() -> ConsumedRecord {
    ConsumedRecord {
        topic: Arc::from(""),
        partition: PartitionId(0),
        offset: Offset(0),
        timestamp: TimestampMs(0),
        key: None,
        value: None,
        headers: Vec::new(),
    }
}
