//! A member that calls a handler: keys side by side, in order within a key, retries, dead letters.

use std::any::Any;
use std::collections::VecDeque;
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
use super::{GroupError, GroupRecord, parked, reconcile, stream};
use crate::client::Client;
use crate::consumer::Consumer;
use crate::record::ConsumedRecord;

pub(super) type Handler = Arc<dyn Fn(Vec<GroupRecord>) -> BoxFuture<'static, Chunk> + Send + Sync>;

/// How far a handler came with the records it was given.
#[derive(Debug, Default)]
pub struct Chunk {
    /// So many are finished, from the first on.
    pub finished: usize,
    /// Why the next one is not; if absent, the rest is handed over again.
    pub error: Option<HandlerError>,
}

impl Chunk {
    /// All of so many are finished.
    #[must_use]
    pub const fn all(finished: usize) -> Self {
        Self {
            finished,
            error: None,
        }
    }
    /// So many are finished, and the next one failed.
    #[must_use]
    pub const fn failed(finished: usize, error: HandlerError) -> Self {
        Self {
            finished,
            error: Some(error),
        }
    }
}

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
        (most, handler): (usize, Handler),
    ) -> Self {
        let (ended, receiver) = watch::channel(None);
        let mut tasks = stream::tasks(&shared);
        let crew = Crew {
            places: Semaphore::new(shared.config.parallelism),
            letters: DeadLetters::new(client, &shared.config.group),
            shared: Arc::clone(&shared),
            most,
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
    /// Records of one key that a handler is given at a time, at the most.
    most: usize,
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
                lanes.spawn(Arc::clone(&shared).read_on_later(error));
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

/// Handles a lane's jobs, in order, until it is empty.
async fn lane(crew: Arc<Crew>, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        let mut jobs = VecDeque::from([job]);
        crew.join(&mut jobs);
        next = None;
        let mut failure = None;
        while !jobs.is_empty() {
            for outcome in crew.work(&jobs, &mut failure).await {
                let Some(job) = jobs.pop_front() else { break };
                if outcome == Outcome::Abandoned {
                    crew.shared.abandon(&job);
                }
                // The lane goes on behind the last one.
                let lane = jobs.is_empty().then_some(&job.lane);
                next = crew.shared.settle(job.ticket, lane, outcome);
            }
        }
    }
}

impl Crew {
    /// Adds what waits in the lane, as much as a handler may be given.
    fn join(&self, jobs: &mut VecDeque<Job>) {
        let room = self.most.saturating_sub(jobs.len());
        if let Some(first) = jobs.front().filter(|_| room > 0) {
            let joined = self.shared.join(first, room);
            jobs.extend(joined);
        }
    }

    fn is_parked(&self, job: &Job) -> bool {
        let name = parked::name(job.record.key.as_ref());
        // Without a key there is no order to keep.
        !name.is_empty() && {
            let state = self.shared.state();
            state.parked.contains(&(job.ticket.tp, name))
        }
    }

    /// The first of these jobs, and those behind it up to one whose key is parked.
    fn together<'a>(&self, jobs: &'a VecDeque<Job>) -> Vec<&'a Job> {
        let goes = |(at, job): &(usize, &Job)| *at == 0 || !self.is_parked(job);
        let together = jobs.iter().enumerate().take_while(goes);
        together.map(|(_, job)| job).collect()
    }

    /// Works on the first of these jobs until at least one has ended. How it ended, and those behind
    /// it that ended with it. `failure`: the first attempt at the first one has failed; left behind
    /// for the next call, when that is so.
    async fn work(&self, jobs: &VecDeque<Job>, failure: &mut Option<HandlerError>) -> Vec<Outcome> {
        let Some(first) = jobs.front() else {
            return Vec::new();
        };
        if self.is_parked(first) {
            let why = "an earlier record of its key is parked";
            *failure = None;
            return vec![self.dead_letter(first, 0, why).await];
        }
        let together = self.together(jobs);
        let (mut attempt, mut blocked) = (0_u32, false);
        let outcomes = loop {
            attempt = attempt.saturating_add(1);
            let error = match failure.take() {
                Some(error) => error,
                None => {
                    let place = tokio::select! {
                        biased;
                        // Nothing of a partition that was given up begins any more, but for what was overtaken.
                        () = self.shared.given_up(first) => break abandoned(&together),
                        place = self.places.acquire() => place,
                    };
                    // After a failure alone: a panic does not say which record was to blame.
                    let most = if attempt > 1 { 1 } else { together.len() };
                    let handed = self
                        .shared
                        .begin_work(together.get(..most).unwrap_or_default());
                    if handed.is_empty() {
                        break abandoned(&together);
                    }
                    let chunk = self.handle(handed, attempt).await;
                    drop(place);
                    if attempt == 1 {
                        // Finished or failed; the rest is handed over again.
                        let tried = chunk.finished + usize::from(chunk.finished < together.len());
                        self.shared.config.retry.called(tried);
                    }
                    if chunk.finished > 0 {
                        *failure = chunk.error;
                        let finished = together.iter().take(chunk.finished);
                        break finished.map(|_| Outcome::Finished).collect();
                    }
                    let nothing = || HandlerError::retryable("the handler finished nothing");
                    chunk.error.unwrap_or_else(nothing)
                }
            };
            let pause = match self.decide(first, attempt, &error) {
                Decision::Retry(pause) => pause,
                Decision::Skip => break vec![Outcome::Finished],
                Decision::DeadLetter => {
                    let error = error.to_string();
                    break vec![self.dead_letter(first, attempt, &error).await];
                }
                Decision::Block(pause) => {
                    // Each time: another key of the partition may have let it go on.
                    self.shared.set_blocked(first.ticket.tp, true);
                    blocked = true;
                    pause
                }
            };
            tokio::select! {
                () = self.pause(pause) => {}
                () = first.cancel.cancelled() => break abandoned(&together),
            }
        };
        if blocked {
            self.shared.set_blocked(first.ticket.tp, false);
        }
        outcomes
    }

    /// The pause before another attempt, and until the budget allows it.
    async fn pause(&self, pause: Duration) {
        sleep(pause).await;
        let random = self.shared.client.inner.cluster.random();
        self.shared.config.retry.allowed(random).await;
    }

    fn decide(&self, job: &Job, attempt: u32, error: &HandlerError) -> Decision {
        let random = self.shared.client.inner.cluster.random();
        let ConsumedRecord {
            topic,
            partition,
            offset,
            ..
        } = &job.record;
        let decision = self.shared.config.retry.decide(attempt, error, random);
        tracing::warn!(
            group = &*self.shared.config.group, %topic, %partition, %offset, attempt, %error,
            ?decision, "a handler failed"
        );
        decision
    }

    /// Only the first record may have been tried before.
    async fn handle(&self, jobs: &[&Job], attempt: u32) -> Chunk {
        let record = |(at, job): (usize, &&Job)| GroupRecord {
            record: job.record.clone(),
            attempt: if at == 0 { attempt } else { 1 },
            redriven: job.redriven,
            receipt: None,
        };
        let records: Vec<GroupRecord> = jobs.iter().enumerate().map(record).collect();
        let handler = &self.handler;
        // A handler that panics must not take its lane with it.
        match AssertUnwindSafe(async { handler(records).await })
            .catch_unwind()
            .await
        {
            Ok(chunk) => chunk,
            Err(panic) => {
                let text = message(&*panic);
                let error = HandlerError::retryable(format!("the handler panicked: {text}"));
                Chunk::failed(0, error)
            }
        }
    }

    /// Puts the record into the dead letter queue. Its key counts as parked from now on.
    async fn dead_letter(&self, job: &Job, attempts: u32, error: &str) -> Outcome {
        tokio::select! {
            // Its acknowledgement may be lost: then it is there twice, and counts once.
            () = self.letters.put(job.origin, &job.record, attempts, error) => {
                Outcome::DeadLettered(parked::name(job.record.key.as_ref()))
            }
            () = job.cancel.cancelled() => Outcome::Abandoned,
        }
    }
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

fn abandoned(jobs: &[&Job]) -> Vec<Outcome> {
    jobs.iter().map(|_| Outcome::Abandoned).collect()
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
