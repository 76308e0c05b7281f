//! A member that hands its records out as a `Stream`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use highwater_proto::PartitionId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::{CommitMode, NamedPartition};
use super::shared::Shared;
use super::state::{Next, Outcome, Ticket};
use super::{GroupError, GroupRecord, ledger, reconcile, session};
use crate::consumer::Consumer;

/// Says once how the work on a record ended.
pub(super) struct Receipt {
    shared: Option<Arc<Shared>>,
    ticket: Ticket,
}

impl Receipt {
    pub(super) fn finish(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.settle(self.ticket, None, Outcome::Finished);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ticket.fmt(f)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let Ticket { tp, offset, .. } = self.ticket;
            tracing::warn!(
                group = &*shared.config.group, partition = %tp, offset,
                "a record was dropped and not said to be done: nothing behind it is committed"
            );
            shared.settle(self.ticket, None, Outcome::Abandoned);
        }
    }
}

/// The tasks of a member: session, assignments, commits. Aborted when dropped.
pub(super) fn tasks(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(session::keep(Arc::clone(shared)));
    tasks.spawn(reconcile::follow(Arc::clone(shared)));
    tasks.spawn(ledger::keep(Arc::clone(shared)));
    tasks
}

/// A member of a group as a `Stream` of records; made by
/// [`GroupBuilder::stream`](super::GroupBuilder::stream).
///
/// With [`CommitMode::Auto`] a record is finished when the next one is asked for: handle it before
/// polling again, and do not buffer the stream. To work on several records at once, or to say
/// yourself what is finished, take [`CommitMode::Explicit`] and [`GroupRecord::done`].
///
/// Polling is cancellation-safe. Dropped without [`GroupConsumer::leave`], it dies as in a crash:
/// others take over when the session is over, from the last commit on.
pub struct GroupConsumer {
    consumer: Consumer,
    shared: Arc<Shared>,
    last: Option<Receipt>,
    over: bool,
    tasks: JoinSet<()>,
}

impl GroupConsumer {
    pub(super) fn new(consumer: Consumer, shared: Arc<Shared>) -> Self {
        Self {
            consumer,
            last: None,
            over: false,
            tasks: tasks(&shared),
            shared,
        }
    }

    /// Commits what is finished now, instead of at the next interval. With [`CommitMode::Auto`]
    /// the record at hand counts as finished too.
    ///
    /// Cancellation-safe: what was under way may or may not be committed.
    ///
    /// # Errors
    /// [`GroupError::Commit`].
    pub async fn commit(&mut self) -> Result<(), GroupError> {
        self.finish_last();
        let deadline = Instant::now() + self.shared.client.inner.request_timeout;
        ledger::commit(&self.shared, deadline)
            .await
            .map_err(GroupError::Commit)
    }

    /// Waits for records that were handed out, commits, and leaves the group, so that others take
    /// over at once. With [`CommitMode::Auto`] the record at hand counts as finished.
    ///
    /// Dropped before it returned, it ends as in a crash.
    ///
    /// # Errors
    /// [`GroupError::Commit`]: what was finished may be handled again.
    pub async fn leave(mut self) -> Result<(), GroupError> {
        self.finish_last();
        reconcile::leave(&self.shared).await
    }

    /// Topics and partitions that are worked on now.
    #[must_use]
    pub fn assignment(&self) -> Vec<NamedPartition> {
        self.shared.assignment()
    }
    /// Hands out nothing more of this partition until [`GroupConsumer::resume`], also after it
    /// went and came back. Heartbeats and commits go on.
    pub fn pause(&self, topic: &str, partition: u32) {
        let name = (Arc::from(topic), PartitionId(partition));
        self.shared.set_paused(Some(name), true);
    }
    /// Goes on with a partition.
    pub fn resume(&self, topic: &str, partition: u32) {
        let name = (Arc::from(topic), PartitionId(partition));
        self.shared.set_paused(Some(name), false);
    }
    /// Hands out nothing more until [`GroupConsumer::resume_all`].
    pub fn pause_all(&self) {
        self.shared.set_paused(None, true);
    }
    /// Goes on with every partition.
    pub fn resume_all(&self) {
        self.shared.set_paused(None, false);
    }

    fn finish_last(&mut self) {
        if let Some(receipt) = self.last.take() {
            receipt.finish();
        }
    }
}

impl Stream for GroupConsumer {
    type Item = Result<GroupRecord, GroupError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.finish_last();
        let shared = Arc::clone(&self.shared);
        let next = std::task::ready!(shared.poll_next(&mut self.consumer, false, context));
        Poll::Ready(match next {
            Next::Job(job) => {
                let receipt = Receipt {
                    shared: Some(Arc::clone(&shared)),
                    ticket: job.ticket,
                };
                let receipt = match shared.config.mode {
                    CommitMode::Explicit => Some(receipt),
                    CommitMode::Auto => {
                        self.last = Some(receipt);
                        None
                    }
                };
                Some(Ok(GroupRecord {
                    record: job.record,
                    attempt: 1,
                    redriven: job.redriven,
                    receipt,
                }))
            }
            Next::Trouble(error) => {
                self.tasks.spawn(shared.read_on_later(error.clone()));
                Some(Err(GroupError::Partition(error)))
            }
            Next::Ended(error) => {
                self.over = true;
                Some(Err(error))
            }
            Next::Stopped => {
                self.over = true;
                None
            }
        })
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // The record at hand was not finished: it comes again.
        if let Some(mut receipt) = self.last.take() {
            receipt.shared = None;
        }
    }
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.shared.config.group)
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}
