//! What another replica has compacted, taken over as it is there: for a replica that cannot compact any
//! more because it lost a range, which exists nowhere else as it was.
//!
//! What comes is written like the result of a compaction of one's own, and takes the place of the old
//! segments in the same way: at once, and durably with the next checkpoint. Each batch counts only with
//! its own checksum and in its order; whether all of them together are what that replica wrote is for the
//! caller to ask before it puts them into their place: [`Adopted::segments`] has their checksums.

use std::sync::Arc;

use bytes::Bytes;
use highwater_env::Disk;
use highwater_proto::batch::split_batches;
use highwater_proto::{Offset, TimestampMs};

use super::output::Output;
use super::replace::remove;
use super::{CompactError, Replacement};
use crate::manifest::{Compacted, SegmentManifest};
use crate::reader::PartitionReader;
use crate::segment::Segment;

/// Nothing was taken over. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Not now.
    #[error("{0}")]
    NotYet(&'static str),
    /// What came is no part of a log that is compacted so far.
    #[error("what came is not what was compacted: {0}")]
    Malformed(&'static str),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] CompactError),
}

/// Segments of another replica on their way into this one.
pub struct Adoption<D: Disk> {
    reader: PartitionReader<D>,
    compacted: Compacted,
    from: Offset,
    resets: u64,
    replaced: Vec<Arc<Segment>>,
    output: Output<D>,
    version: u64,
    /// The segment there that comes now.
    segment: Option<Offset>,
    least: Offset,
}

/// All of them, durable, before they take their place.
pub struct Adopted<D: Disk> {
    /// To be put into its place, or discarded.
    pub replacement: Replacement<D>,
    /// What was written.
    pub segments: Vec<SegmentManifest>,
}

impl<D: Disk> PartitionReader<D> {
    /// Begins to take over what another replica has left of everything below `compacted.upto`.
    ///
    /// # Errors
    /// [`AdoptError::NotYet`].
    pub fn adopt(&self, compacted: Compacted) -> Result<Adoption<D>, AdoptError> {
        let view = self.shared.view.read();
        if view.compacted.generation >= compacted.generation {
            return Err(AdoptError::NotYet("it is not compacted further there"));
        }
        if self.next_offset() < compacted.upto {
            return Err(AdoptError::NotYet("not all of it is written here"));
        }
        let below = view.segments.range(..compacted.upto.0);
        let replaced: Vec<_> = below.map(|(_, segment)| Arc::clone(segment)).collect();
        let ends_within = |segment: &Arc<Segment>| {
            let extent = segment.extent();
            extent.sealed && extent.next_offset <= compacted.upto
        };
        if !replaced.iter().all(ends_within) {
            return Err(AdoptError::NotYet("a segment is not closed here"));
        }
        let (from, resets) = (view.log_start, view.resets);
        drop(view);
        let version = self.shared.versions.take();
        Ok(Adoption {
            reader: self.clone(),
            compacted,
            from,
            resets,
            replaced,
            // It ends where it ends there.
            output: Output::new(&self.shared, version, 0),
            version,
            segment: None,
            least: Offset(0),
        })
    }
}

impl<D: Disk> Adoption<D> {
    /// Where what is wanted begins.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }
    /// Takes whole batches of one segment of the other replica: its base, and when its last batch was
    /// appended. Blocks on the disk.
    ///
    /// # Errors
    /// [`AdoptError`]: then [`Self::discard`].
    pub fn push(
        &mut self,
        (base, appended): (Offset, TimestampMs),
        batches: Bytes,
    ) -> Result<(), AdoptError> {
        if !batches.is_empty() && self.segment != Some(base) {
            self.output.cut()?;
            self.segment = Some(base);
        }
        for batch in split_batches(batches) {
            let batch = batch.map_err(|_| AdoptError::Malformed("a batch is bad"))?;
            let header = batch.header();
            if header.base_offset < self.least {
                return Err(AdoptError::Malformed("a batch lies below the one before"));
            }
            if header.next_offset() > self.compacted.upto {
                return Err(AdoptError::Malformed("a batch reaches over the end"));
            }
            self.output.push(header, batch.bytes(), appended)?;
            self.least = header.next_offset();
        }
        Ok(())
    }
    /// All has come. Blocks on the disk.
    ///
    /// # Errors
    /// [`AdoptError::Write`]; what was written is gone then.
    pub fn finish(mut self) -> Result<Adopted<D>, AdoptError> {
        let made = match self.output.finish() {
            Ok(made) => made,
            Err(error) => {
                self.discard();
                return Err(error.into());
            }
        };
        let segments = made.iter().filter_map(|made| made.to_manifest()).collect();
        let ids = self.replaced.iter().map(|segment| segment.name.id);
        let replacement = Replacement {
            shared: Arc::clone(&self.reader.shared),
            resets: self.resets,
            replaced: ids.collect(),
            made,
            compacted: self.compacted,
            versions: vec![self.version],
        };
        Ok(Adopted {
            replacement,
            segments,
        })
    }
    /// Gives up: removes what was written. Blocks on the disk.
    pub fn discard(self) {
        let shared = &self.reader.shared;
        remove(shared, self.output.names());
        shared.versions.give_back(self.version);
    }
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
