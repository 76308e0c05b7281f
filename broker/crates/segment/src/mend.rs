//! Putting back what a segment lost: its bytes come from another replica, and count only if they are
//! exactly those that were written here.
//!
//! They are gathered in a file of their own, checked as a whole against the segment's checksum, and
//! made durable there; only then is the segment touched. A sealed segment's file is replaced by it.
//! One that still grows is written over, in place, where it differs: its writer goes on behind it
//! meanwhile. Whenever the process dies, the segment has its old bytes or its right ones, block by
//! block, and never less than before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::{Disk, DiskFile, OpenMode};
use highwater_proto::{Offset, TopicPartition};

use crate::fault::SegmentFault;
use crate::layout::{MEND, OFFSET_INDEX, TIME_INDEX};
use crate::manifest::SegmentManifest;
use crate::reader::PartitionReader;
use crate::segment::Segment;

/// What is compared, and written over where it differs.
const BLOCK: usize = 4096;
/// Read at once.
const PIECE: usize = 1 << 20;

/// A range was not put back. The segment is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// What came is not what was written here: one of both replicas is wrong, and a checksum made
    /// when the range was written says that it is not this one.
    #[error(
        "partition {partition}, offsets {from} to {end}: what came does not fit the checksum of \
         what was written here ({found})"
    )]
    Differs {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the range.
        from: Offset,
        /// The first offset behind it.
        end: Offset,
        /// What differs.
        found: String,
    },
    /// The segment was trimmed or compacted meanwhile: nobody needs it any more.
    #[error("partition {0}: the segment is gone")]
    Gone(TopicPartition),
    /// The file system refused.
    #[error("{operation} of {path} failed: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A sync failed: the process has to stop.
    #[error(transparent)]
    Fault(#[from] Arc<SegmentFault>),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MendError {
    move |source| MendError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// A segment's range on its way back.
pub struct Mend<D: Disk> {
    reader: PartitionReader<D>,
    segment: Arc<Segment>,
    wanted: SegmentManifest,
    file: D::File,
    path: PathBuf,
    len: u64,
    sum: crc32fast::Hasher,
}

impl<D: Disk> PartitionReader<D> {
    /// Begins to put a segment's range back, as far as it reaches now.
    ///
    /// # Errors
    /// [`MendError`].
    pub fn mend(&self, base: Offset) -> Result<Mend<D>, MendError> {
        let partition = self.shared.owner.partition;
        let (segment, wanted) = self.segment(base).ok_or(MendError::Gone(partition))?;
        let path = segment.name.path(MEND);
        let disk = self.shared.files.disk();
        // The directory may be what was lost.
        disk.create_dir_all(&segment.name.dir)
            .map_err(failed("making the directory", &path))?;
        let file = disk.open(&path, OpenMode::Truncate);
        Ok(Mend {
            reader: self.clone(),
            file: file.map_err(failed("making", &path))?,
            segment,
            wanted,
            path,
            len: 0,
            sum: crc32fast::Hasher::new(),
        })
    }
}

impl<D: Disk> Mend<D> {
    /// The range that is wanted: offsets from the segment's base to its end.
    #[must_use]
    pub fn wanted(&self) -> SegmentManifest {
        self.wanted
    }
    /// Takes the next bytes of the range. Blocks on the disk.
    ///
    /// # Errors
    /// [`MendError`]; more bytes than the range has are [`MendError::Differs`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), MendError> {
        if bytes.len() as u64 > self.wanted.len_bytes - self.len {
            return Err(self.differs(format!("more than {} bytes", self.wanted.len_bytes)));
        }
        self.file
            .write_at(bytes, self.len)
            .map_err(failed("writing", &self.path))?;
        self.sum.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }
    fn differs(&self, found: String) -> MendError {
        MendError::Differs {
            partition: self.reader.shared.owner.partition,
            from: self.wanted.base_offset,
            end: self.wanted.next_offset,
            found,
        }
    }

    /// Checks what came and puts it into its place, durably. Blocks on the disk.
    ///
    /// # Errors
    /// [`MendError`]; after a fault the process has to stop.
    pub fn put_back(self) -> Result<(), MendError> {
        let (len, sum) = (self.len, self.sum.clone().finalize());
        if len != self.wanted.len_bytes || sum != self.wanted.checksum {
            return Err(self.differs(format!(
                "{len} bytes with checksum {sum:08x}, not {} with {:08x}",
                self.wanted.len_bytes, self.wanted.checksum
            )));
        }
        if !self.reader.shared.view.read().has(&self.segment) {
            let partition = self.reader.shared.owner.partition;
            self.give_up();
            return Err(MendError::Gone(partition));
        }
        self.sync(&self.file, &self.path)?;
        let now = self.segment.extent();
        if now.sealed && now.len == len {
            self.replace()
        } else {
            self.write_over()
        }
    }
    /// Gives up: what came so far is removed.
    pub fn give_up(self) {
        let Self { path, file, .. } = self;
        drop(file);
        if let Err(error) = self.reader.shared.files.disk().remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what came of a range");
        }
    }

    fn sync(&self, file: &D::File, path: &Path) -> Result<(), MendError> {
        let faults = &self.reader.shared.files.faults;
        let synced = file.sync_data();
        Ok(synced.map_err(|error| faults.raise("sync", path.to_owned(), error))?)
    }
    /// A sealed segment's file is written by nobody: the new one takes its name.
    fn replace(&self) -> Result<(), MendError> {
        let (files, name) = (&self.reader.shared.files, &self.segment.name);
        let disk = files.disk();
        let log = name.log_path();
        disk.rename(&self.path, &log)
            .map_err(failed("renaming", &self.path))?;
        for dir in [Some(&*name.dir), name.dir.parent()].into_iter().flatten() {
            let synced = disk.sync_dir(dir);
            synced.map_err(|error| files.faults.raise("sync", dir.to_owned(), error))?;
        }
        // Made from what was there before, perhaps.
        for index in [OFFSET_INDEX, TIME_INDEX] {
            match disk.remove_file(&name.path(index)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("removing", &name.path(index))(error)),
            }
        }
        // Whoever still holds the old file reads it once more, and finds it bad once more.
        files.forget(name.id);
        Ok(())
    }
    /// Blocks that differ, or cannot be read, are written over; the writer appends behind them.
    fn write_over(self) -> Result<(), MendError> {
        let disk = self.reader.shared.files.disk();
        let log = self.segment.name.log_path();
        let file = disk.open(&log, OpenMode::Write);
        let file = file.map_err(failed("opening", &log))?;
        let mut at = 0;
        while at < self.len {
            let piece = usize::try_from(self.len - at).unwrap_or(usize::MAX);
            let mut right = vec![0; piece.min(PIECE)];
            self.file
                .read_exact_at(&mut right, at)
                .map_err(failed("reading", &self.path))?;
            for (number, block) in right.chunks(BLOCK).enumerate() {
                let place = at + (number * BLOCK) as u64;
                let mut there = vec![0; block.len()];
                let same = file.read_exact_at(&mut there, place).is_ok() && there == block;
                if !same {
                    file.write_at(block, place)
                        .map_err(failed("writing", &log))?;
                }
            }
            at += right.len() as u64;
        }
        self.sync(&file, &log)?;
        self.give_up();
        Ok(())
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
