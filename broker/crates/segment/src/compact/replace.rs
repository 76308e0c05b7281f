//! What compaction made takes the place of what it was made from: in memory, at once for all readers.
//! It counts after a crash when the next checkpoint names it; until then the old files stay.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use highwater_env::Disk;
use highwater_proto::{Offset, TopicPartition};

use super::Compaction;
use crate::error::ReadError;
use crate::layout::SegmentName;
use crate::log::PartitionLog;
use crate::manifest::{Compacted, SegmentManifest};
use crate::reader::{PartitionReader, PartitionShared};
use crate::segment::Segment;

/// A finished compaction on its way into its log. What never gets there is to be discarded.
pub struct Replacement<D: Disk> {
    pub(crate) shared: Arc<PartitionShared<D>>,
    pub(super) resets: u64,
    pub(super) replaced: BTreeSet<u64>,
    pub(super) made: Vec<Arc<Segment>>,
    pub(super) compacted: Compacted,
    pub(super) versions: Vec<u64>,
}

/// What became of a [`Replacement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is what readers read, and what the next manifest names.
    Done,
    /// Somebody copies what it replaces: to be tried again.
    Pinned,
    /// The log is not the one that was compacted any more.
    Stale,
}

impl<D: Disk> Compaction<D> {
    /// The result, after [`super::CompactionProgress::Complete`]; `None` before.
    #[must_use]
    pub fn finish(mut self) -> Option<Replacement<D>> {
        let made = self.result.take()?;
        Some(Replacement {
            shared: Arc::clone(&self.reader.shared),
            resets: self.resets,
            replaced: self.replaced.iter().map(|s| s.name.id).collect(),
            made,
            compacted: Compacted {
                generation: self.task.generation,
                upto: self.task.upto,
            },
            versions: std::mem::take(&mut self.versions),
        })
    }
    /// Gives up: removes what was written. Blocks on the disk.
    pub fn discard(mut self) {
        let shared = &self.reader.shared;
        remove(shared, self.output.names());
        let made = self.result.take().unwrap_or_default();
        let segments = made.iter().chain(&self.earlier);
        remove(shared, segments.map(|segment| &segment.name));
        for version in &self.versions {
            shared.versions.give_back(*version);
        }
    }
}

impl<D: Disk> Replacement<D> {
    /// Of which partition.
    #[must_use]
    pub fn partition(&self) -> TopicPartition {
        self.shared.owner.partition
    }
    /// Gives up: removes what was written. Blocks on the disk.
    pub fn discard(self) {
        remove(&self.shared, self.made.iter().map(|segment| &segment.name));
        self.give_back();
    }
    fn give_back(&self) {
        for version in &self.versions {
            self.shared.versions.give_back(*version);
        }
    }
}

/// Removes files that no log has. What cannot be removed is found at the next start.
pub(super) fn remove<'a, D: Disk>(
    shared: &PartitionShared<D>,
    names: impl Iterator<Item = &'a SegmentName>,
) {
    for name in names {
        shared.files.forget(name.id);
        for path in name.all_paths() {
            match shared.files.disk().remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a file");
                }
            }
        }
    }
}

impl<D: Disk> PartitionLog<D> {
    /// Puts the result of a compaction into its place. The files that it replaces wait for
    /// [`Self::take_unlinkable`].
    pub fn replace(&mut self, new: &Replacement<D>) -> Replaced {
        if !Arc::ptr_eq(&self.shared, &new.shared) {
            return Replaced::Stale;
        }
        let mut view = self.shared.view.write();
        if self.shared.is_pinned() {
            return Replaced::Pinned;
        }
        let below = view.segments.range(..new.compacted.upto.0);
        let is_known = below
            .clone()
            .all(|(_, s)| new.replaced.contains(&s.name.id));
        // Begun anew, or compacted by somebody else, meanwhile. What was trimmed does not matter.
        if view.resets != new.resets || !is_known {
            return Replaced::Stale;
        }
        let bases: Vec<u64> = below.map(|(base, _)| *base).collect();
        for base in bases {
            self.retired.extend(view.segments.remove(&base));
        }
        for segment in &new.made {
            if segment.extent().next_offset <= view.log_start {
                self.retired.push(Arc::clone(segment));
            } else {
                let base = segment.name.base.0;
                view.segments.insert(base, Arc::clone(segment));
            }
        }
        view.compacted = new.compacted;
        drop(view);
        new.give_back();
        Replaced::Done
    }
}

/// While it lives, nothing of the log is replaced: whoever copies it sees one state of it.
pub struct Pin<D: Disk> {
    reader: PartitionReader<D>,
    compacted: Compacted,
}

/// Whole batches of one segment.
#[derive(Debug, Clone)]
pub struct PinnedPiece {
    /// The batches; none when there is nothing before the end that was asked for.
    pub batches: Bytes,
    /// Where they lie.
    pub segment: Option<SegmentManifest>,
}

impl<D: Disk> PartitionReader<D> {
    /// Keeps what is compacted as it is. Not for long: what waits to be compacted grows meanwhile.
    #[must_use]
    pub fn pin(&self) -> Pin<D> {
        let view = self.shared.view.read();
        self.shared.pins.fetch_add(1, Ordering::SeqCst);
        Pin {
            reader: self.clone(),
            compacted: view.compacted,
        }
    }
}

impl<D: Disk> Drop for Pin<D> {
    fn drop(&mut self) {
        self.reader.shared.pins.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<D: Disk> Pin<D> {
    /// How far the log is compacted while it is pinned.
    #[must_use]
    pub fn compacted(&self) -> Compacted {
        self.compacted
    }
    /// As [`PartitionReader::read`], with the segment that was read. Blocks on the disk.
    ///
    /// # Errors
    /// As [`PartitionReader::read`].
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        end: Offset,
    ) -> Result<PinnedPiece, ReadError> {
        let (batches, segment) = self.reader.read_with_segment(from, max_bytes, end)?;
        Ok(PinnedPiece {
            batches,
            segment: segment.and_then(|segment| segment.to_manifest()),
        })
    }
}
