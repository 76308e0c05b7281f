//! The 61 bytes before the records, parsed into plain values.
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut};

use super::{Attributes, BatchError};

use crate::{BatchSequence, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Length of the whole header in bytes.
pub const HEADER_LEN: usize = 61;
/// Length of what a broker writes anew: base offset, length, leader epoch.
pub const HEAD_LEN: usize = 16;
/// Bytes that the length field does not count: base offset and itself.
pub const LENGTH_END: usize = 12;
/// Where the bytes begin that the checksum covers: the attributes.
pub(super) const CHECKED_FROM: usize = 21;
pub(super) const CRC_AT: usize = 17;

const MAGIC: i8 = 2;
/// The least value of the length field: a header without records.
const MIN_LENGTH: i32 = (HEADER_LEN - LENGTH_END) as i32;
/// An uncompressed record takes at least its length, attributes, two deltas, two lengths, a count.
const MIN_RECORD_LEN: usize = 7;

/// A batch's header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Outside the checksum; a producer's is ignored.
    pub base_offset: Offset,
    /// Bytes after the length field itself.
    pub batch_length: u32,
    /// Epoch of the leader that appended it; `None` (negative) until a broker has. Outside the
    /// checksum.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Always 2.
    pub magic: i8,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: u32,
    /// Compression and flags.
    pub attributes: Attributes,
    /// Last offset minus base offset. Stays when compaction removes records.
    pub last_offset_delta: u32,
    /// What the records' timestamps are relative to.
    pub base_timestamp: TimestampMs,
    /// The latest of the records' timestamps, or the append time.
    pub max_timestamp: TimestampMs,
    /// `None` (-1) for a producer without idempotence.
    pub producer_id: Option<ProducerId>,
    /// 0 when there is no producer id.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record; `None` (-1) without a producer id and in control batches.
    pub base_sequence: Option<BatchSequence>,
    /// Records in the batch. 0 only in a stored batch that compaction emptied.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header that `bytes` begin with and checks what can be checked in it alone. The
    /// checksum is not; neither is whether the rest of the batch is there.
    ///
    /// # Errors
    /// [`BatchError`], never `Decompress` or `Record`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated {
                need: HEADER_LEN,
                have: bytes.len(),
            });
        };
        // The reads below add up to the header's length, so none can come up short.
        let mut field = header.as_slice();
        let (base_offset, length) = (field.get_i64(), field.get_i32());
        let (leader_epoch, magic, crc) = (field.get_i32(), field.get_i8(), field.get_u32());
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        if length < MIN_LENGTH {
            return Err(BatchError::BadLength { length });
        }
        if base_offset < 0 {
            return Err(BatchError::BadBaseOffset { base_offset });
        }
        let attributes = Attributes::from_bits(field.get_u16())?;
        let last_offset_delta = field.get_i32();
        let base_timestamp = TimestampMs(field.get_i64());
        let max_timestamp = TimestampMs(field.get_i64());
        let producer = Producer::parse(field.get_i64(), field.get_i16(), field.get_i32())?;
        let count = field.get_i32();
        let header = Self {
            base_offset: Offset(base_offset.unsigned_abs()),
            batch_length: length.unsigned_abs(),
            leader_epoch: u32::try_from(leader_epoch).ok().map(LeaderEpoch),
            magic,
            crc,
            attributes,
            last_offset_delta: last_offset_delta.unsigned_abs(),
            base_timestamp,
            max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.sequence,
            record_count: count.unsigned_abs(),
        };
        // Compaction may leave gaps, so a stored batch can have fewer records than offsets.
        if count < 0 || last_offset_delta < 0 || header.record_count > header.offset_count() {
            return Err(header.bad_count(count, last_offset_delta));
        }
        Ok(header)
    }
    /// What a produced batch must hold beyond a stored one: records, and an offset for each.
    pub(super) fn check_produced(&self) -> Result<(), BatchError> {
        if self.record_count == 0 || self.record_count != self.offset_count() {
            return Err(self.bad_count_now());
        }
        if let (Some(id), None, false) = (
            self.producer_id,
            self.base_sequence,
            self.attributes.is_control(),
        ) {
            let epoch = self.producer_epoch.0.cast_signed();
            return Err(BatchError::BadProducer {
                id: id.0.cast_signed(),
                epoch,
                sequence: -1,
            });
        }
        Ok(())
    }
    /// Whether this many records can be in this many bytes; cannot be told of compressed ones.
    pub(super) fn check_plausible(&self) -> Result<(), BatchError> {
        let least = u64::from(self.record_count) * MIN_RECORD_LEN as u64;
        let compressed = self.attributes.compression() != super::Compression::None;
        if !compressed && least > self.records_len() as u64 {
            return Err(self.bad_count_now());
        }
        Ok(())
    }
    fn bad_count_now(&self) -> BatchError {
        self.bad_count(
            self.record_count.cast_signed(),
            self.last_offset_delta.cast_signed(),
        )
    }
    fn bad_count(&self, count: i32, last_offset_delta: i32) -> BatchError {
        BatchError::BadCount {
            count,
            last_offset_delta,
            records_bytes: self.records_len(),
        }
    }
    /// The first 16 bytes of the batch at its place: base offset, length, leader epoch. They lie
    /// outside the checksum and are the only ones that the broker writes.
    ///
    /// Offsets above `i64::MAX` and epochs above `i32::MAX` do not fit the format; the log ends
    /// before them.
    #[must_use]
    pub fn head(&self, base: Offset, epoch: LeaderEpoch) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        let mut field = head.as_mut_slice();
        field.put_u64(base.0);
        field.put_u32(self.batch_length);
        field.put_u32(epoch.0);
        head
    }
    /// Length of the whole batch in bytes.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        LENGTH_END + self.batch_length as usize
    }
    /// Length of the (possibly compressed) records in bytes.
    #[must_use]
    pub const fn records_len(&self) -> usize {
        self.total_len() - HEADER_LEN
    }
    /// How many offsets the batch spans; at least 1.
    #[must_use]
    pub const fn offset_count(&self) -> u32 {
        // The delta came from a non-negative i32.
        self.last_offset_delta.saturating_add(1)
    }
    /// Offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64)
    }
    /// The offset after the last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }
    /// Sequence of the last record; wraps from `i32::MAX` to 0.
    #[must_use]
    pub fn last_sequence(&self) -> Option<BatchSequence> {
        // Both are below 2^31, so the sum fits 32 bits and the mask is the wrap.
        let last = |base: BatchSequence| (base.0 + self.last_offset_delta) & i32::MAX as u32;
        self.base_sequence.map(|base| BatchSequence(last(base)))
    }
}

struct Producer {
    id: Option<ProducerId>,
    epoch: ProducerEpoch,
    sequence: Option<BatchSequence>,
}

impl Producer {
    fn parse(id: i64, epoch: i16, sequence: i32) -> Result<Self, BatchError> {
        let bad = BatchError::BadProducer {
            id,
            epoch,
            sequence,
        };
        if id < -1 || epoch < -1 || sequence < -1 || (id >= 0 && epoch < 0) {
            return Err(bad);
        }
        Ok(Self {
            id: u64::try_from(id).ok().map(ProducerId),
            epoch: ProducerEpoch(u16::try_from(epoch).unwrap_or_default()),
            sequence: u32::try_from(sequence).ok().map(BatchSequence),
        })
    }
}
