//! A replica that is no member any more leaves nothing behind.
//!
//! Order: the log forgets the group, then the checkpoint goes, then the segments. Whatever a crash
//! leaves is either a checkpoint without a log, which is a state as good as any to begin from, or
//! files that no checkpoint names. Removed files may come back with a loss of power, too: what lies in
//! partitions of a shard that has neither log nor checkpoint here is removed by the next process.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use highwater_env::{Disk, Env, Workers};
use highwater_proto::{ShardId, TopicPartition};
use highwater_raft::Groups;

use super::checkpoint::{checkpoint_path, store_error};
use super::machine::ShardContext;
use super::{blocking, checkpoint};
use crate::node::stop_if_sync_failed;

/// Removes all that this broker holds of a shard that does not run here: `partitions` are those
/// that the cluster knows in it, each with the plan whose move brought it.
///
/// # Errors
/// Those of the log and of the file system; to be called again after a restart.
pub async fn discard<E: Env>(
    context: &Arc<ShardContext<E>>,
    groups: &Groups<E>,
    shard: ShardId,
    partitions: Vec<(TopicPartition, u64)>,
) -> io::Result<()> {
    groups.forget(shard).await?;
    let files = checkpoint::CheckpointFiles::new(
        &context.env,
        checkpoint_path(&context.dir, shard),
        context.store.clone(),
    );
    let mut partitions: BTreeSet<(TopicPartition, u64)> = partitions.into_iter().collect();
    // One that cannot be read names nothing that could be kept.
    if let Ok(Some(known)) = files.read().await {
        let named = known.partitions.iter();
        partitions.extend(named.map(|(tp, manifest)| (*tp, manifest.arrival)));
    }
    remove_checkpoint(context, shard).await?;
    let mut segments = context.store.shard(shard);
    // And with them those of topics that are gone and that no checkpoint has named.
    let deleted = segments.delete_all(partitions.into_iter().collect()).await;
    deleted.map_err(store_error)?;
    let removed = context.store.unlink(shard, Arc::default()).await;
    let removed = removed.map_err(store_error)?;
    tracing::info!(shard = shard.0, files = removed, "removed a replica");
    Ok(())
}

/// Whether anything of a shard lies here.
///
/// # Errors
/// Those of the file system.
pub async fn is_there<E: Env>(
    context: &Arc<ShardContext<E>>,
    groups: &Groups<E>,
    shard: ShardId,
) -> io::Result<bool> {
    if groups.remembers(shard) {
        return Ok(true);
    }
    let (disk, path) = (
        context.env.disk().clone(),
        checkpoint_path(&context.dir, shard),
    );
    let exists = move || disk.exists(&path);
    match context.env.workers() {
        Workers::Tasks => exists(),
        Workers::Threads => blocking(exists).await,
    }
}

async fn remove_checkpoint<E: Env>(context: &ShardContext<E>, shard: ShardId) -> io::Result<()> {
    let (disk, dir) = (context.env.disk().clone(), context.dir.clone());
    let path = checkpoint_path(&dir, shard);
    let remove = move || match disk.remove_file(&path) {
        Ok(()) => disk.sync_dir(&dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    let removed = match context.env.workers() {
        Workers::Tasks => remove(),
        Workers::Threads => blocking(remove).await,
    };
    stop_if_sync_failed(removed)
}
