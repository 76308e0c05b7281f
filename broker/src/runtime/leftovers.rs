//! Files that a broker which died had no time to remove: segments below the start of their log, and
//! directories of partitions of deleted topics, or that are in another shard now.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use highwater_env::{Env, Workers};
use highwater_proto::{ShardId, TopicPartition};

use super::checkpoint::{CheckpointFiles, checkpoint_path, store_error};
use super::machine::ShardContext;
use super::{Shard, blocking};

/// Removes segment files that neither the shard's durable checkpoint names nor its logs use. To be
/// called when the shard has applied again what it had before its last start: what it writes anew
/// is in use then. Returns how many are gone.
///
/// # Errors
/// Those of the file system, or an unreadable checkpoint: nothing is removed then.
pub async fn of_shard<E: Env>(
    context: &Arc<ShardContext<E>>,
    shard: &Shard<E::Disk>,
) -> io::Result<usize> {
    let path = checkpoint_path(&context.dir, shard.id);
    let files = CheckpointFiles::new(&context.env, path, context.store.clone());
    let Some(durable) = files.read().await? else {
        return Ok(0);
    };
    let removed = context
        .store
        .remove_orphans(shard.id, Arc::new(durable.partitions));
    note(shard.id, removed.await.map_err(store_error)?)
}

fn note(shard: ShardId, files: usize) -> io::Result<usize> {
    if files > 0 {
        tracing::info!(shard = shard.0, files, "removed what a crash had left");
    }
    Ok(files)
}

/// The partitions that have a directory here, in use or not, each with the move that brought it.
///
/// # Errors
/// Those of the file system.
pub async fn directories<E: Env>(
    context: &ShardContext<E>,
) -> io::Result<Vec<(TopicPartition, u64)>> {
    let store = context.store.clone();
    let list = move || store.partition_directories();
    match context.env.workers() {
        Workers::Tasks => list(),
        Workers::Threads => blocking(list).await,
    }
}

/// Removes directories that no log uses of partitions that are gone: `is_gone` says so of one that a
/// move has brought. To be called when all shards of this broker have applied again what they had
/// before its last start. Returns how many files are gone.
///
/// # Errors
/// Those of the file system.
pub async fn of_gone_partitions<E: Env>(
    context: &Arc<ShardContext<E>>,
    is_gone: impl Fn(TopicPartition, u64) -> bool,
) -> io::Result<usize> {
    let found = directories(context).await?;
    let (gone, kept): (BTreeSet<_>, BTreeSet<_>) = found
        .into_iter()
        .partition(|(tp, arrival)| is_gone(*tp, *arrival));
    if gone.is_empty() {
        return Ok(0);
    }
    // One that is made meanwhile is in use.
    let removed = context.store.remove_orphan_partitions(Arc::new(kept)).await;
    let removed = removed.map_err(store_error)?;
    if removed > 0 {
        tracing::info!(
            files = removed,
            "removed what was left of partitions that are gone"
        );
    }
    Ok(removed)
}
