//! Names of directories and files: one directory per partition and shard that it was in, files named
//! by base offset, and by a version where compaction, or a replica that is filled anew, writes what
//! lies there already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_proto::{Offset, PartitionId, ShardId, TopicId, TopicPartition};

/// Extension of the record batches.
pub(crate) const LOG: &str = "log";
/// Extension of the sparse offset index.
pub(crate) const OFFSET_INDEX: &str = "index";
/// Extension of the sparse time index.
pub(crate) const TIME_INDEX: &str = "timeindex";
/// Extension of record batches that were fetched again, on their way to `log`.
pub(crate) const MEND: &str = "mend";
/// Every extension that belongs to a segment; `tmp` is a file on its way to one of the others.
pub(crate) const EXTENSIONS: [&str; 5] = [LOG, OFFSET_INDEX, TIME_INDEX, MEND, "tmp"];

/// Digits of a base offset in a file name, so that names sort as offsets do.
const DIGITS: usize = 20;

/// Whose files these are: what a sync may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogIdentity {
    /// The shard whose checkpoints name the files.
    pub shard: ShardId,
    /// The partition.
    pub partition: TopicPartition,
    /// Which move brought it to the shard; 0: it was made there. A broker may hold the shard that a
    /// partition leaves and the one that it goes to: their files must not meet.
    pub arrival: u64,
}

impl LogIdentity {
    /// The directory of its files below `root`.
    #[must_use]
    pub fn dir(&self, root: &Path) -> PathBuf {
        partition_dir(root, (self.partition, self.arrival))
    }
}

/// The file with the batches of a segment, in its partition's directory.
#[must_use]
pub fn log_path(dir: &Path, base: Offset, version: u64) -> PathBuf {
    segment_path(dir, (base, version), LOG)
}

fn segment_path(dir: &Path, (base, version): (Offset, u64), extension: &str) -> PathBuf {
    let base = base.0;
    dir.join(match version {
        0 => format!("{base:0DIGITS$}.{extension}"),
        _ => format!("{base:0DIGITS$}-{version}.{extension}"),
    })
}

/// The directory below `root` of a partition that came to its shard by the move `arrival`.
#[must_use]
pub fn partition_dir(root: &Path, (partition, arrival): (TopicPartition, u64)) -> PathBuf {
    root.join(match arrival {
        0 => partition.to_string(),
        _ => format!("{partition}-{arrival}"),
    })
}

/// The partition whose directory has this name, if it is one, and the move that brought it.
#[must_use]
pub(crate) fn parse_partition_dir(path: &Path) -> Option<(TopicPartition, u64)> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.splitn(3, '-');
    let partition = TopicPartition::new(
        TopicId(parts.next()?.parse().ok()?),
        PartitionId(parts.next()?.parse().ok()?),
    );
    let arrival = parts.next().map_or(Ok(0), str::parse).ok()?;
    // Only the one spelling that `partition_dir` writes: "+1-0" or "01-0" is somebody else's.
    let spelled = partition_dir(Path::new(""), (partition, arrival));
    (spelled.as_os_str() == name).then_some((partition, arrival))
}

/// A segment's place on the disk, and its key in the file cache.
#[derive(Debug, Clone)]
pub(crate) struct SegmentName {
    /// Unique in this process.
    pub id: u64,
    /// Whose it is.
    pub owner: LogIdentity,
    /// The partition's directory.
    pub dir: Arc<Path>,
    /// The first offset it may hold.
    pub base: Offset,
    /// Tells apart what was written for the same offsets; 0 is what was appended.
    pub version: u64,
}

impl SegmentName {
    /// The file with the batches.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path(LOG)
    }
    /// One of the segment's files.
    pub(crate) fn path(&self, extension: &str) -> PathBuf {
        segment_path(&self.dir, (self.base, self.version), extension)
    }
    /// All names that the segment's files may have, but for an index on its way to its own.
    pub(crate) fn all_paths(&self) -> [PathBuf; 4] {
        [
            self.path(MEND),
            self.path(LOG),
            self.path(OFFSET_INDEX),
            self.path(TIME_INDEX),
        ]
    }
}

/// The partition and base offset of the segment that a file belongs to, by its path.
pub(crate) fn parse_segment_path(path: &Path) -> Option<(TopicPartition, Offset)> {
    let (base, _) = parse_segment_file(path)?;
    let (partition, _) = parse_partition_dir(path.parent()?)?;
    Some((partition, base))
}

/// The base offset and version in a file's name, if the name is one that a segment has.
pub(crate) fn parse_segment_file(path: &Path) -> Option<(Offset, u64)> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once('.')?;
    if !EXTENSIONS.contains(&extension) {
        return None;
    }
    let (base, version) = match stem.split_once('-') {
        Some((base, version)) => (base, Some(version)),
        None => (stem, None),
    };
    if base.len() != DIGITS || !base.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let base = Offset(base.parse().ok()?);
    let Some(text) = version else {
        return Some((base, 0));
    };
    // Only the one spelling that is written.
    let version: u64 = text.parse().ok()?;
    (version > 0 && version.to_string() == text).then_some((base, version))
}
