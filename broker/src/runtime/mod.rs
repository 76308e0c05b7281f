//! The shards that this broker hosts: from an accepted batch to a verdict, from a position to
//! bytes.

pub mod accumulate;
pub(crate) mod checkpoint;
pub mod compaction;
pub mod damage;
pub mod damage_file;
pub mod discard;
pub mod groups;
pub mod import;
mod install;
pub mod leftovers;
pub mod machine;
pub mod pull;
pub mod standing;
pub mod tail;
pub mod turns;
pub mod view;

use std::io;
use std::sync::Arc;

use highwater_env::Disk;
use highwater_proto::ShardId;
use highwater_raft::Group;
use highwater_segment::{CheckpointError, ReadCheckpointError};

use accumulate::Accumulator;
use groups::GroupViews;
use view::Views;

use crate::groups::Coordinator;

/// One hosted shard.
pub struct Shard<D: Disk> {
    /// Which one.
    pub id: ShardId,
    /// As the image had it when the replica was begun: whose replica it is, under a number that may be
    /// given to a new group.
    pub beginning: u64,
    /// Its Raft group.
    pub group: Group,
    /// Its partitions, for readers.
    pub views: Arc<Views<D>>,
    /// Where batches are handed in.
    pub accumulator: Accumulator,
    /// Its consumer groups, for readers.
    pub groups: Arc<GroupViews>,
    /// What is known of their members while this broker leads the shard.
    pub coordinator: Coordinator,
}

/// A checkpoint that cannot be read, with what a person can do about it.
pub(crate) fn unreadable(error: ReadCheckpointError) -> io::Error {
    let cure = match &error {
        ReadCheckpointError::Content {
            source: CheckpointError::NewerVersion { .. },
            ..
        } => "run a newer highwater",
        _ => {
            "keep a copy of the directory, then replace this broker (`highwater cluster replace` with \
             its id, and an empty data directory), so that it is filled again from the others"
        }
    };
    io::Error::other(format!("{error}; nothing was changed: {cure}"))
}

/// Runs a short blocking call away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        // panic = "abort" leaves only one way here: the runtime is shutting down under us.
        Err(_cancelled) => std::future::pending().await,
    }
}
