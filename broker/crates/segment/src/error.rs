//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_env::is_full;
use highwater_proto::batch::BatchError;
use highwater_proto::{Offset, TopicPartition};

use crate::fault::SegmentFault;
use crate::file_cache::FileError;
use crate::layout::parse_segment_path;
use crate::manifest::ManifestError;

/// A range of a segment does not hold what it must. Nothing from it is served, nothing deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: {path} is damaged at byte {position}: {reason}",
    path = path.display())]
pub struct Damage {
    /// The partition.
    pub partition: TopicPartition,
    /// The segment file.
    pub path: PathBuf,
    /// Where, in bytes from the file's start.
    pub position: u64,
    /// What is wrong there.
    pub reason: &'static str,
}

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset was trimmed away.
    #[error("the log starts at offset {log_start}")]
    BelowStart {
        /// The first offset that can be read.
        log_start: Offset,
    },
    /// A bad range.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A file is missing, short, or cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file system refused.
    #[error("reading {path} failed: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A batch is intact as a whole but its records cannot be decoded.
    #[error("partition {partition}: the batch at offset {offset} cannot be decoded: {source}")]
    Undecodable {
        /// The partition.
        partition: TopicPartition,
        /// The batch's base offset.
        offset: Offset,
        /// What the decoder said.
        source: BatchError,
    },
}

impl ReadError {
    /// The segment, by partition and base offset, that does not hold what it must or cannot be
    /// read: its bytes are wanted from another replica. `None` when the error says nothing of what
    /// is stored (the range was trimmed, or the process has no descriptor left).
    #[must_use]
    pub fn bad_segment(&self) -> Option<(TopicPartition, Offset)> {
        let path = match self {
            Self::Damaged(damage) => &damage.path,
            Self::File(FileError::Missing { path } | FileError::Short { path, .. })
            | Self::Io { path, .. } => path,
            Self::BelowStart { .. } | Self::File(_) | Self::Undecodable { .. } => return None,
        };
        parse_segment_path(path)
    }
}

/// Opening a partition's log failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The manifest contradicts itself.
    #[error("partition {partition}: the manifest is not valid: {source}")]
    Manifest {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong.
        source: ManifestError,
    },
    /// A file that the manifest names is missing, short, or cannot be opened.
    #[error("partition {partition}: {source}")]
    File {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong.
        source: FileError,
    },
}

/// An append failed. Nothing of the batch counts; batches before it in the same call do.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room. The same append may be repeated once there is.
    #[error("no space left for {path}", path = path.display())]
    StorageFull {
        /// The segment file.
        path: PathBuf,
    },
    /// The batch overlaps what is there without being contained in it.
    #[error(
        "partition {partition}: batch {base}..={last} does not continue the log at {next_offset}"
    )]
    OutOfPlace {
        /// The partition.
        partition: TopicPartition,
        /// The batch's first offset.
        base: Offset,
        /// The batch's last offset.
        last: Offset,
        /// Where the log ends.
        next_offset: Offset,
    },
    /// Head and body are not one batch.
    #[error("partition {partition}: the batch at offset {base} has a head that does not fit it")]
    Malformed {
        /// The partition.
        partition: TopicPartition,
        /// The batch's first offset.
        base: Offset,
    },
    /// The segment file is missing, short, or cannot be opened.
    #[error(transparent)]
    File(FileError),
    /// A write or sync failed: the process has to stop.
    #[error(transparent)]
    Fault(#[from] Arc<SegmentFault>),
}

impl From<FileError> for AppendError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { path, source, .. } if is_full(&source) => Self::StorageFull { path },
            FileError::Fault(fault) => Self::Fault(fault),
            other => Self::File(other),
        }
    }
}
