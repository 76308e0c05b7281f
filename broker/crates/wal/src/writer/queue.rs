//! What waits for the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::frame::FRAME_HEAD_LEN;
use crate::ops::{Done, GroupId, Op};
use crate::shared::Shared;
use crate::{LogIndex, RenewError, WalError};

/// The writer's jobs.
pub(crate) enum Job<F> {
    /// Operations to make durable.
    Submit(Submission<F>),
    /// Do what can be done now: prepare files, try for disk space again.
    Poke,
    /// Go on in another file and give all before it back; then answer.
    Renew(oneshot::Sender<Result<(), RenewError>>),
    /// Drain, mark and stop; then answer.
    Close(oneshot::Sender<()>),
}

/// Counts as waiting until the writer has taken it.
struct Waiting<F>(Arc<Shared<F>>);

impl<F> Drop for Waiting<F> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Operations of one group that become durable together. Its `done` is called exactly once: with
/// an error if the submission is dropped by whoever holds it.
pub(crate) struct Submission<F> {
    pub group: GroupId,
    pub ops: Vec<Op>,
    /// Bytes of all its frames.
    pub bytes: u64,
    done: Option<Done>,
    waiting: Option<Waiting<F>>,
    /// Its share of the queue's bytes, given back when it is done.
    _permit: OwnedSemaphorePermit,
}

impl<F> Submission<F> {
    pub(crate) fn new(
        group: GroupId,
        ops: Vec<Op>,
        done: Done,
        permit: OwnedSemaphorePermit,
        shared: &Arc<Shared<F>>,
    ) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Some(Waiting(Arc::clone(shared)));
        let bytes = frame_bytes(&ops);
        Self {
            group,
            ops,
            bytes,
            done: Some(done),
            waiting,
            _permit: permit,
        }
    }
    /// The writer has it now.
    pub(crate) fn taken(&mut self) {
        self.waiting = None;
    }
    /// Answers.
    pub(crate) fn complete(mut self, result: Result<(), WalError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
    /// Whether it may go before others that wait for disk space: it adds no entry, and removes
    /// none that waits. `last` is the group's last entry, and `before` what of its own group waits before it. A vote
    /// that is durable before the entries taken in under an older one would be taken as the word that they are durable
    /// too; a purge before a cut would leave entries of an older term behind it.
    pub(crate) fn may_overtake(&self, last: Option<LogIndex>, before: Before) -> bool {
        self.ops.iter().all(|op| match (op, before) {
            (Op::Append { .. }, _) => false,
            (_, Before::Nothing) => true,
            (Op::Purge { upto, .. }, Before::Entries) => last.is_some_and(|last| *upto <= last),
            _ => false,
        })
    }

    /// What waits of its group when it does, beside what waits already.
    pub(crate) fn waits(&self, before: Before) -> Before {
        let cuts = |op: &Op| matches!(op, Op::Truncate { .. } | Op::Forget);
        if before == Before::Cut || self.ops.iter().any(cuts) {
            Before::Cut
        } else {
            Before::Entries
        }
    }
}

/// What of a group waits for disk space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Before {
    #[default]
    Nothing,
    /// Entries, and perhaps states and purges behind them.
    Entries,
    /// Something among them removes the end of the log.
    Cut,
}

impl<F> Drop for Submission<F> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(WalError::Closed));
        }
    }
}

/// Bytes of the frames of `ops`.
pub(crate) fn frame_bytes(ops: &[Op]) -> u64 {
    ops.iter()
        .map(|op| (FRAME_HEAD_LEN + op.payload_len()) as u64)
        .sum()
}
