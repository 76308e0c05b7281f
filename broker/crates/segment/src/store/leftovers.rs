//! What a process that died left in the directory of all partitions.

use std::io;

use highwater_env::Disk;
use highwater_proto::TopicPartition;

use super::SegmentStore;
use crate::layout::parse_partition_dir;

impl<D: Disk> SegmentStore<D> {
    /// The partitions that have a directory, open or not, each with the move that brought it. Blocks on
    /// the file system.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn partition_directories(&self) -> io::Result<Vec<(TopicPartition, u64)>> {
        let found = self
            .shared
            .files
            .disk()
            .read_dir(&self.shared.config.root)?;
        Ok(found
            .iter()
            .filter_map(|path| parse_partition_dir(path))
            .collect())
    }
}
