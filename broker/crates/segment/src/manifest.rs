//! What a checkpoint knows of a partition's files: the only truth about their lengths.

use bytes::Bytes;
use highwater_proto::{Offset, TimestampMs};
use prost::Message;

/// One segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentManifest {
    /// The first offset it may hold; its name.
    pub base_offset: Offset,
    /// Bytes that count, from the file's start.
    pub len_bytes: u64,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// The greatest timestamp of its records.
    pub max_timestamp: TimestampMs,
    /// When its last batch was appended: the latest time that any batch of it was stamped with, because a
    /// leader's clock may have been behind.
    pub last_append_time: TimestampMs,
    /// Whether it no longer grows. Only the last segment of a partition may be unsealed.
    pub sealed: bool,
    /// CRC-32 (ISO-HDLC) of the bytes that count.
    pub checksum: u32,
    /// Which of the files for these offsets it is; 0 is the one that was appended to.
    pub version: u64,
}

/// A partition's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionManifest {
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// Segments by base offset.
    pub segments: Vec<SegmentManifest>,
    /// What compaction has done.
    pub compacted: Compacted,
    /// Which move brought the partition to its shard; 0: none.
    pub arrival: u64,
}

/// How far a log is compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Which compaction it was; they count up. 0: none.
    pub generation: u64,
    /// Everything below is as that compaction left it.
    pub upto: Offset,
}

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not what a manifest looks like.
    #[error("it cannot be decoded: {0}")]
    Undecodable(#[from] prost::DecodeError),
    /// It says what no log can be.
    #[error("segment {base_offset}: {reason}")]
    Segment {
        /// Which segment.
        base_offset: Offset,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its bounds contradict each other.
    #[error("log start {log_start} or the last segment lies above the log's end {next_offset}")]
    Bounds {
        /// The first offset that may be read.
        log_start: Offset,
        /// The log's end.
        next_offset: Offset,
    },
}

impl PartitionManifest {
    /// Encodes it, without a checksum: checkpoints and messages have their own.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        PartitionMessage::from(self).encode_to_vec().into()
    }
    /// Decodes and validates.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest = Self::from(PartitionMessage::decode(bytes)?);
        manifest.validate()?;
        Ok(manifest)
    }
    /// Whether it can describe a log: segments in order, none empty, only the last one growing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let bounds = ManifestError::Bounds {
            log_start: self.log_start,
            next_offset: self.next_offset,
        };
        let mut least = Offset(0);
        for (at, segment) in self.segments.iter().enumerate() {
            let last = at + 1 == self.segments.len();
            let reason = if segment.base_offset < least {
                "it overlaps the one before"
            } else if segment.next_offset <= segment.base_offset || segment.len_bytes == 0 {
                "it is empty"
            } else if !segment.sealed && !last {
                "it is not sealed and not the last"
            } else {
                least = segment.next_offset;
                continue;
            };
            return Err(ManifestError::Segment {
                base_offset: segment.base_offset,
                reason,
            });
        }
        if self.log_start > self.next_offset || least > self.next_offset {
            return Err(bounds);
        }
        Ok(())
    }
    /// Moves the log's start up, as [`crate::PartitionLog::set_log_start`] does.
    pub fn trim(&mut self, log_start: Offset) {
        if log_start <= self.log_start {
            return;
        }
        self.segments
            .retain(|segment| segment.next_offset > log_start);
        self.log_start = log_start;
        self.next_offset = self.next_offset.max(log_start);
    }
    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len_bytes).sum()
    }
    /// Whether it names the file with this base offset and version.
    #[must_use]
    pub fn names(&self, base_offset: Offset, version: u64) -> bool {
        let found = self
            .segments
            .binary_search_by_key(&base_offset, |segment| segment.base_offset);
        found
            .ok()
            .and_then(|at| self.segments.get(at))
            .is_some_and(|segment| segment.version == version)
    }
    /// Whether a release that does not know compaction would misread it.
    pub(crate) fn needs_compaction(&self) -> bool {
        self.compacted != Compacted::default() || self.segments.iter().any(|s| s.version != 0)
    }
}

/// [`SegmentManifest`] as stored.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct SegmentMessage {
    #[prost(uint64, tag = "1")]
    base_offset: u64,
    #[prost(uint64, tag = "2")]
    len_bytes: u64,
    #[prost(uint64, tag = "3")]
    next_offset: u64,
    #[prost(sint64, tag = "4")]
    max_timestamp: i64,
    #[prost(sint64, tag = "5")]
    last_append_time: i64,
    #[prost(bool, tag = "6")]
    sealed: bool,
    #[prost(fixed32, tag = "7")]
    checksum: u32,
    #[prost(uint64, tag = "8")]
    version: u64,
}

/// [`PartitionManifest`] as stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartitionMessage {
    #[prost(uint64, tag = "1")]
    log_start: u64,
    #[prost(uint64, tag = "2")]
    next_offset: u64,
    #[prost(message, repeated, tag = "3")]
    segments: Vec<SegmentMessage>,
    #[prost(uint64, tag = "4")]
    compaction: u64,
    #[prost(uint64, tag = "5")]
    compacted_upto: u64,
    #[prost(uint64, tag = "6")]
    arrival: u64,
}

impl From<&PartitionManifest> for PartitionMessage {
    fn from(manifest: &PartitionManifest) -> Self {
        let segment = |s: &SegmentManifest| SegmentMessage {
            base_offset: s.base_offset.0,
            len_bytes: s.len_bytes,
            next_offset: s.next_offset.0,
            max_timestamp: s.max_timestamp.0,
            last_append_time: s.last_append_time.0,
            sealed: s.sealed,
            checksum: s.checksum,
            version: s.version,
        };
        Self {
            log_start: manifest.log_start.0,
            next_offset: manifest.next_offset.0,
            segments: manifest.segments.iter().map(segment).collect(),
            compaction: manifest.compacted.generation,
            compacted_upto: manifest.compacted.upto.0,
            arrival: manifest.arrival,
        }
    }
}

impl From<PartitionMessage> for PartitionManifest {
    fn from(message: PartitionMessage) -> Self {
        let segment = |s: SegmentMessage| SegmentManifest {
            base_offset: Offset(s.base_offset),
            len_bytes: s.len_bytes,
            next_offset: Offset(s.next_offset),
            max_timestamp: TimestampMs(s.max_timestamp),
            last_append_time: TimestampMs(s.last_append_time),
            sealed: s.sealed,
            checksum: s.checksum,
            version: s.version,
        };
        Self {
            log_start: Offset(message.log_start),
            next_offset: Offset(message.next_offset),
            segments: message.segments.into_iter().map(segment).collect(),
            compacted: Compacted {
                generation: message.compaction,
                upto: Offset(message.compacted_upto),
            },
            arrival: message.arrival,
        }
    }
}
