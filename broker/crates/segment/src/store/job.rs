//! What the two workers take.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_env::Disk;
use highwater_proto::{Offset, ShardId, TopicPartition};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::append::AppendBatch;
use crate::compact::{Replaced, Replacement};
use crate::error::OpenError;
use crate::fault::SegmentFault;
use crate::manifest::{Compacted, PartitionManifest};
use crate::sync::SyncReport;

/// Manifests of a shard's partitions.
pub(super) type Manifests = Vec<(TopicPartition, PartitionManifest)>;

/// A step of a shard's log, in its order.
pub(super) struct ShardJob {
    pub shard: ShardId,
    /// Whose it is: rises from handle to handle.
    pub handle: u64,
    /// Rises from job to job of a shard.
    pub sequence: u64,
    pub step: Step,
    /// Room in the queue, by bytes; given back when the step is done.
    pub permit: OwnedSemaphorePermit,
}

/// Which of a partition's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The one that is read.
    Own,
    /// The one that is to take its place.
    Aside,
}

/// What becomes of a shard's partitions when its state is replaced, beside what lies aside.
#[derive(Debug, Default)]
pub(super) struct NewContent {
    /// Where logs begin.
    pub log_starts: Vec<(TopicPartition, Offset)>,
    /// Partitions that are no more.
    pub gone: Vec<TopicPartition>,
}

pub(super) enum Step {
    Open {
        partitions: Manifests,
        check: bool,
        done: oneshot::Sender<Result<(), OpenError>>,
    },
    Create {
        partition: TopicPartition,
        /// The move that brought it; 0: none.
        arrival: u64,
    },
    Append {
        partition: TopicPartition,
        place: Place,
        batches: Vec<AppendBatch>,
    },
    Trim {
        partition: TopicPartition,
        log_start: Offset,
    },
    Delete {
        partition: TopicPartition,
    },
    /// Begins an empty log beside the partition's own.
    BeginAside {
        partition: TopicPartition,
        arrival: u64,
    },
    /// Says how far the log aside is compacted, and where it ends.
    SetCompacted {
        partition: TopicPartition,
        compacted: Compacted,
        next_offset: Offset,
    },
    /// Asks for the manifests that the shard will have when what lies aside has taken its place.
    FreezeAside {
        done: oneshot::Sender<Manifests>,
    },
    TakeAside {
        new: NewContent,
        done: oneshot::Sender<()>,
    },
    GiveUpAside,
    /// The shard leaves this broker: its logs, and directories that moves have brought, open or not.
    DeleteAll {
        named: Vec<(TopicPartition, u64)>,
        done: oneshot::Sender<()>,
    },
}

pub(super) enum WriteJob<D: Disk> {
    Shard(ShardJob),
    /// A barrier was set while nothing else may come.
    Wake,
    /// What was gathered is to be written now.
    Write,
    /// There may be space again.
    Retry,
    /// What compaction made is there.
    Replace {
        new: Replacement<D>,
        done: oneshot::Sender<(Replaced, Replacement<D>)>,
    },
    TakeUnlinkable {
        shard: ShardId,
        durable: Arc<Manifests>,
        done: oneshot::Sender<Removal>,
    },
    /// Removed by the writer itself, with nothing in between: what it begins to use a moment later
    /// may have the name of what was no one's.
    RemoveOrphans {
        shard: ShardId,
        durable: Arc<Manifests>,
        done: oneshot::Sender<usize>,
    },
    RemoveOrphanPartitions {
        named: Arc<BTreeSet<(TopicPartition, u64)>>,
        done: oneshot::Sender<usize>,
    },
    Stop,
}

/// Files to remove, and directories to remove with all that is in them.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub files: Vec<PathBuf>,
    pub directories: Vec<PathBuf>,
}

impl Removal {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty()
    }
}

pub(super) enum SyncJob {
    Sync {
        shard: ShardId,
        done: oneshot::Sender<Result<SyncReport, Arc<SegmentFault>>>,
    },
    Remove {
        removal: Removal,
        done: oneshot::Sender<usize>,
    },
    Stop,
}
