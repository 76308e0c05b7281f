//! The write-ahead log as the store sees it: one trait, so that a group does not carry the
//! broker's surroundings in its type, and so that tests can put failures in between.

use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use highwater_env::{Env, Workers};
use highwater_wal::{Done, GroupId, LogIndex, Op, Wal};

/// The slot of the log that holds the vote.
pub(crate) const VOTE_SLOT: u8 = 0;
/// The slot that holds the last committed entry's id.
pub(crate) const COMMITTED_SLOT: u8 = 1;

/// What the log holds of a group when it starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recovered {
    pub purged: Option<Bytes>,
    pub first_index: Option<u64>,
    pub last_index: Option<u64>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    /// The last entry that had rotted when the log was opened; a checkpoint is said to cover it.
    pub unreadable: Option<u64>,
}

/// A log shared by all groups.
pub(crate) trait Journal: Send + Sync + 'static {
    /// Hands over operations in order; returns when they are queued. `done` runs when they are
    /// durable.
    fn submit(&self, group: GroupId, ops: Vec<Op>, done: Done) -> BoxFuture<'_, io::Result<()>>;
    /// Written entries from `from` on; blocks.
    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> io::Result<Vec<(u64, Bytes)>>;
    /// What is durable of a group.
    fn recovered(&self, group: GroupId) -> Recovered;
    /// Whether blocking calls need a thread of their own.
    fn workers(&self) -> Workers;
}

/// The broker's log.
pub(crate) struct WalJournal<E: Env> {
    pub(crate) wal: Wal<E>,
    pub(crate) workers: Workers,
}

impl<E: Env> Journal for WalJournal<E> {
    fn submit(&self, group: GroupId, ops: Vec<Op>, done: Done) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.wal
                .submit(group, ops, done)
                .await
                .map_err(io::Error::other)
        })
    }
    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let read = self
            .wal
            .read(group, LogIndex(from), LogIndex(to), max_bytes);
        let entries = read.map_err(io::Error::other)?;
        Ok(entries
            .into_iter()
            .map(|(index, bytes)| (index.0, bytes))
            .collect())
    }
    fn recovered(&self, group: GroupId) -> Recovered {
        let bounds = self.wal.bounds(group);
        let slot = |slot: u8| bounds.states.get(&slot).cloned();
        Recovered {
            vote: slot(VOTE_SLOT),
            committed: slot(COMMITTED_SLOT),
            purged: bounds.purged.as_ref().map(|(_, meta)| meta.clone()),
            first_index: bounds.first.map(|first| first.0),
            last_index: bounds.last.map(|last| last.0),
            unreadable: bounds.unreadable.map(|index| index.0),
        }
    }
    fn workers(&self) -> Workers {
        self.workers
    }
}
