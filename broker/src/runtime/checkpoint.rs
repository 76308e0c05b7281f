//! Checkpoints: one durable file per shard that names everything needed to go on without the log
//! before it.
//!
//! Order, each step durable before the next: state and file lengths frozen at one applied entry;
//! the log durable past it (the raft crate waits for that); the segments and their directories
//! synced; the manifest replaced. Only then are files unlinked that no durable manifest names.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Disk, Env, Workers};
use highwater_proto::ShardId;
use highwater_raft::{Frozen, StoredCheckpoint};
use highwater_segment::{Checkpoint, FreezeTicket, SegmentStore, StoreError};

use highwater_shard::ShardState;

use super::compaction::Replaced;
use super::{blocking, unreadable};
use crate::node::stop_if_sync_failed;

/// A shard at one applied entry, on its way to the disk.
pub struct FrozenShard<D: Disk> {
    pub(super) shard: ShardId,
    pub(super) state: ShardState,
    pub(super) ticket: FreezeTicket,
    pub(super) files: CheckpointFiles<D>,
    pub(super) replaced: Replaced,
}

/// Where a shard's checkpoint and segments lie.
#[derive(Clone)]
pub struct CheckpointFiles<D: Disk> {
    pub(super) disk: D,
    pub(super) workers: Workers,
    pub(super) path: PathBuf,
    pub(super) store: SegmentStore<D>,
}

impl<D: Disk> Frozen for FrozenShard<D> {
    async fn persist(self, raft_meta: Bytes) -> io::Result<Bytes> {
        let Self {
            shard,
            state,
            ticket,
            files,
            replaced,
        } = self;
        let store = async {
            let partitions = ticket.wait().await.map_err(io::Error::other)?;
            let checkpoint = Checkpoint {
                raft_meta,
                state: state.encode_snapshot(),
                partitions,
            };
            files.store_durably(shard, checkpoint).await
        };
        // One that failed names nothing new.
        store.await.inspect_err(|_| replaced.note(shard))
    }
}

impl<D: Disk> CheckpointFiles<D> {
    /// The files of one shard in the given surroundings.
    pub(super) fn new<E: Env<Disk = D>>(env: &E, path: PathBuf, store: SegmentStore<D>) -> Self {
        Self {
            disk: env.disk().clone(),
            workers: env.workers(),
            path,
            store,
        }
    }

    /// Syncs the segments, then replaces the checkpoint, then unlinks what it no longer names.
    /// Returns the checkpoint's content.
    ///
    /// # Errors
    /// Those of the file system. The old checkpoint counts then.
    pub(super) async fn store_durably(
        self,
        shard: ShardId,
        checkpoint: Checkpoint,
    ) -> io::Result<Bytes> {
        self.store.sync(shard).await.map_err(io::Error::other)?;
        let content = checkpoint.encode();
        let (disk, path) = (self.disk, self.path);
        let written = content.clone();
        let write = move || highwater_env::replace_durably(&disk, &path, &written);
        let replaced = match self.workers {
            Workers::Tasks => write(),
            Workers::Threads => blocking(write).await,
        };
        stop_if_sync_failed(replaced)?;
        let durable = Arc::new(checkpoint.partitions);
        self.store
            .unlink(shard, durable)
            .await
            .map_err(io::Error::other)?;
        Ok(content)
    }

    /// The checkpoint that a start begins with, made durable before anything is built on it: the
    /// log is cut behind it, and a process that died after its rename may have left it in the page
    /// cache alone.
    ///
    /// # Errors
    /// Those of [`Self::read`] and of the file system.
    pub(super) async fn read_settled(&self) -> io::Result<Option<Checkpoint>> {
        let checkpoint = self.read().await?;
        let (disk, path) = (self.disk.clone(), self.path.clone());
        let settle = move || highwater_env::settle(&disk, &path);
        let settled = match self.workers {
            Workers::Tasks => settle(),
            Workers::Threads => blocking(settle).await,
        };
        stop_if_sync_failed(settled)?;
        Ok(checkpoint)
    }

    /// The last durable checkpoint, if there is one.
    ///
    /// # Errors
    /// Names the file and what is wrong with it; it is left alone.
    pub(super) async fn read(&self) -> io::Result<Option<Checkpoint>> {
        let (disk, path) = (self.disk.clone(), self.path.clone());
        let read = move || Checkpoint::read(&disk, &path).map_err(unreadable);
        match self.workers {
            Workers::Tasks => read(),
            Workers::Threads => blocking(read).await,
        }
    }
}

/// The checkpoint of a shard below the directory of all.
pub(crate) fn checkpoint_path(dir: &std::path::Path, shard: ShardId) -> PathBuf {
    dir.join(format!("{:06}.checkpoint", shard.0))
}

/// What the raft crate keeps of a checkpoint.
pub(super) fn stored(checkpoint: &Checkpoint) -> StoredCheckpoint {
    StoredCheckpoint {
        raft_meta: checkpoint.raft_meta.clone(),
        manifest: checkpoint.encode(),
    }
}

/// A failure of the segment store as an error of the state machine.
pub(super) fn store_error(error: StoreError) -> io::Error {
    io::Error::other(error)
}
