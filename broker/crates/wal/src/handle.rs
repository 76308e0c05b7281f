//! The handle through which the log is used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::{Disk, Env, WorkerHandle, WorkerJoin};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::config::WalConfig;
use crate::file::open_error;
use crate::frame::{FIRST_GROUP, FRAME_HEAD_LEN};
use crate::index::Bounds;
use crate::ops::{Done, GroupId, LogIndex, Op};
use crate::recover::{self, Recovery};
use crate::shared::Shared;
use crate::stats::WalStats;
use crate::writer::Writer;
use crate::writer::queue::{Job, Submission, frame_bytes};
use crate::{LogCheck, RenewError, WalError, WalOpenError, WalReadError, read};

/// Jobs that may wait for the writer, beside the bound on bytes.
const QUEUE_JOBS: usize = 16_384;
/// The largest submission, heads included, in bytes. Lengths in a group have 32 bits.
const MAX_SUBMISSION: u64 = 1 << 30;
/// How often space for a new file is tried for while the disk is full.
const FULL_RETRY: Duration = Duration::from_millis(250);

type File<E> = <<E as Env>::Disk as Disk>::File;

/// The log of one broker. Clones share it.
pub struct Wal<E: Env> {
    inner: Arc<Inner<File<E>>>,
}

impl<E: Env> Clone for Wal<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E: Env> fmt::Debug for Wal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct Inner<F> {
    shared: Arc<Shared<F>>,
    writer: Arc<WorkerHandle<Job<F>>>,
    bytes: Arc<Semaphore>,
    queue_bytes: usize,
    budget_bytes: u64,
    join: Mutex<Option<WorkerJoin>>,
    /// Pokes the writer while the disk is full; ended with the last handle.
    retry: Option<JoinHandle<()>>,
}

impl<F> Drop for Inner<F> {
    fn drop(&mut self) {
        if let Some(retry) = &self.retry {
            retry.abort();
        }
    }
}

/// What a group should checkpoint and purge so that the log returns below its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeHint {
    /// The group.
    pub group: GroupId,
    /// Purging up to and including this entry empties the oldest files of the group.
    pub upto: LogIndex,
}

impl<E: Env> Wal<E> {
    /// Opens the log in `dir`, creating it if there is none, and reads it back. Blocking. Only one
    /// log may be open in a directory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`WalOpenError`]: a failed file call, or damage below a position known durable. A torn tail
    /// is no error.
    pub fn open(env: &E, dir: &Path, config: WalConfig) -> Result<(Self, Recovery), WalOpenError> {
        if config.file_bytes < 2 * FIRST_GROUP || config.queue_bytes == 0 {
            let what = "a file must have at least 8 KiB, and the queue at least one byte";
            return Err(WalOpenError::Config { what });
        }
        let shared = Arc::new(Shared::new());
        let (start, recovery) = recover::open(env.disk(), dir, &config, &shared)?;
        let queue_bytes = config
            .queue_bytes
            .min(Semaphore::MAX_PERMITS)
            .min(u32::MAX as usize);
        let budget_bytes = config.budget_bytes;
        let writer = Writer::new(start, Arc::clone(&shared), config);
        let (writer, join) = env
            .workers()
            .spawn("wal-writer", QUEUE_JOBS, writer)
            .map_err(open_error("start the writer of", dir))?;
        // Files are prepared in the background from the start.
        let _ = writer.try_send(Job::Poke);
        let writer = Arc::new(writer);
        let retry = retry_when_full(&shared, &writer);
        let inner = Inner {
            shared,
            writer,
            bytes: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            budget_bytes,
            join: Mutex::new(Some(join)),
            retry,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            recovery,
        ))
    }

    /// Hands over operations of one group, which become durable together, and returns when they
    /// are queued; waits while too many bytes are queued. Operations of a group take effect in the
    /// order in which they were handed over; only while the disk is full may a purge of what is
    /// written go before entries of its group that wait.
    ///
    /// `done` is called exactly once, whatever happens: on the writer when the operations are
    /// durable or have failed, in the order in which they were handed over; or, when nothing was
    /// handed over, at once with the error that is also returned.
    ///
    /// Cancellation: a future that is dropped has handed over nothing; `done` gets
    /// [`WalError::Closed`].
    ///
    /// # Errors
    /// [`WalError`] when nothing was handed over.
    pub async fn submit(&self, group: GroupId, ops: Vec<Op>, done: Done) -> Result<(), WalError> {
        let inner = &*self.inner;
        let mut pending = Pending(Some(done));
        let bytes = frame_bytes(&ops);
        let refused = inner.shared.check().and_then(|()| {
            if bytes <= MAX_SUBMISSION {
                return Ok(());
            }
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            Err(WalError::TooLarge {
                bytes,
                max: 1 << 30,
            })
        });
        if let Err(error) = refused {
            return pending.fail(error);
        }
        let share = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(inner.queue_bytes);
        // Memory is counted by payload, but an operation without one takes room too.
        let share = u32::try_from(share.max(FRAME_HEAD_LEN).min(inner.queue_bytes));
        let permit = Arc::clone(&inner.bytes)
            .acquire_many_owned(share.unwrap_or(u32::MAX))
            .await;
        let Ok(permit) = permit else {
            return pending.fail(WalError::Closed);
        };
        if let Err(error) = inner.shared.check() {
            return pending.fail(error);
        }
        let Some(done) = pending.0.take() else {
            return Err(WalError::Closed);
        };
        let job = Job::Submit(Submission::new(group, ops, done, permit, &inner.shared));
        inner.writer.send(job).await.map_err(|_| WalError::Closed)
    }

    /// Submits and waits until the operations are durable.
    ///
    /// Cancellation: whether the operations become durable is then unknown.
    ///
    /// # Errors
    /// [`WalError`].
    pub async fn write(&self, group: GroupId, ops: Vec<Op>) -> Result<(), WalError> {
        let (answer, answered) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            let _ = answer.send(result);
        });
        self.submit(group, ops, done).await?;
        answered.await.unwrap_or(Err(WalError::Closed))
    }

    /// Durable entries of `group`, consecutive from `from` and before `to_exclusive`, verified. At
    /// most `max_bytes` of payload, but at least one entry if `from` exists; none if it does not.
    /// Blocking positional reads.
    ///
    /// # Errors
    /// [`WalReadError`]: a failed read, or an entry that does not match its checksum.
    pub fn read(
        &self,
        group: GroupId,
        from: LogIndex,
        to_exclusive: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<(LogIndex, Bytes)>, WalReadError> {
        let runs = {
            let index = self.inner.shared.index.read();
            read::plan(&index, group, from, to_exclusive, max_bytes)
        };
        let mut entries = Vec::new();
        for run in runs {
            run.read(&mut entries)?;
        }
        Ok(entries)
    }

    /// What is durable of `group`. A group that was never written, or was forgotten, has nothing.
    #[must_use]
    pub fn bounds(&self, group: GroupId) -> Bounds {
        let index = self.inner.shared.index.read();
        index
            .groups
            .get(&group)
            .map(Bounds::from)
            .unwrap_or_default()
    }

    /// The groups that have anything.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner
            .shared
            .index
            .read()
            .groups
            .keys()
            .copied()
            .collect()
    }

    /// What should be checkpointed and purged so that the log returns below its budget: the
    /// entries in its oldest files. Sorted by group; empty while the log is within its budget.
    #[must_use]
    pub fn purge_hints(&self) -> Vec<PurgeHint> {
        let index = self.inner.shared.index.read();
        let mut excess = index.used_bytes().saturating_sub(self.inner.budget_bytes);
        let mut highest: BTreeMap<GroupId, u64> = BTreeMap::new();
        let newest = index
            .files
            .last_key_value()
            .map(|(generation, _)| *generation);
        for (generation, file) in &index.files {
            if excess == 0 || Some(*generation) == newest {
                break;
            }
            excess = excess.saturating_sub(file.file.len);
            for (group, upto) in &file.highest {
                let known = highest.entry(*group).or_insert(*upto);
                *known = (*known).max(*upto);
            }
        }
        let hints = highest.into_iter().filter_map(|(group, upto)| {
            let entries = index.groups.get(&group).filter(|g| !g.entries.is_empty())?;
            let upto = upto.min(entries.end() - 1);
            (upto >= entries.first).then_some(PurgeHint {
                group,
                upto: LogIndex(upto),
            })
        });
        hints.collect()
    }

    /// A walk over all that was written and is not given back yet, to find what has rotted.
    #[must_use]
    pub fn check(&self) -> LogCheck<File<E>> {
        LogCheck::new(Arc::clone(&self.inner.shared))
    }

    /// Goes on in another file, writes again what is needed of all files before it, and gives those
    /// back: what has rotted in them is out of the way of the next start. An entry that is unreadable
    /// has to be purged before. Returns when that is durable.
    ///
    /// Cancellation: it goes on, or is done.
    ///
    /// # Errors
    /// [`RenewError`]; a log that was not renewed holds what it held.
    pub async fn renew(&self) -> Result<(), RenewError> {
        self.inner.shared.check()?;
        let (answer, answered) = oneshot::channel();
        let asked = self.inner.writer.send(Job::Renew(answer)).await;
        asked.map_err(|_| WalError::Closed)?;
        let closed = || self.failure().unwrap_or(WalError::Closed);
        answered.await.unwrap_or_else(|_| Err(closed().into()))
    }

    /// The log's figures now.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        self.inner.shared.stats()
    }

    /// The error that ended the log, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<WalError> {
        self.inner.shared.failure().cloned()
    }

    /// Makes durable what was submitted before, marks the end of the log, and ends the writer.
    /// What is submitted later fails, through every clone. Entries can still be read.
    pub async fn close(self) {
        let (answer, answered) = oneshot::channel();
        if self.inner.writer.send(Job::Close(answer)).await.is_ok() {
            let _ = answered.await;
        }
        let join = self.inner.join.lock().take();
        if let Some(join) = join {
            join.join().await;
        }
    }
}

/// A `done` not yet handed over.
struct Pending(Option<Done>);

impl Pending {
    fn fail(&mut self, error: WalError) -> Result<(), WalError> {
        if let Some(done) = self.0.take() {
            done(Err(error.clone()));
        }
        Err(error)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(WalError::Closed));
        }
    }
}

fn retry_when_full<F: Send + Sync + 'static>(
    shared: &Arc<Shared<F>>,
    writer: &Arc<WorkerHandle<Job<F>>>,
) -> Option<JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let shared = Arc::clone(shared);
    let writer = Arc::downgrade(writer);
    Some(runtime.spawn(async move {
        loop {
            shared.full.notified().await;
            tokio::time::sleep(FULL_RETRY).await;
            let Some(writer) = writer.upgrade() else {
                return;
            };
            // A full queue wakes the writer by itself.
            let _ = writer.try_send(Job::Poke);
        }
    }))
}
