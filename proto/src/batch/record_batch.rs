//! One validated batch: checked without decoding its records, stamped without copying them.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{CHECKED_FROM, CRC_AT, HEAD_LEN, HEADER_LEN};
use super::{Attributes, BatchError, BatchHeader, DecodeLimits, RecordIter};
use crate::{BatchSequence, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// The bytes of exactly one batch, whose lengths, counts and checksum have been found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: Bytes,
    header: BatchHeader,
}

/// A batch as it is stored: a fresh head, and the rest shared with what was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampedBatch {
    /// Base offset, length, leader epoch.
    pub head: [u8; HEAD_LEN],
    /// Everything after them.
    pub body: Bytes,
}

impl StampedBatch {
    /// Length of both in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        HEAD_LEN + self.body.len()
    }
    /// Both in one piece; copies.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len());
        whole.put_slice(&self.head);
        whole.put_slice(&self.body);
        whole.freeze()
    }
}

impl RecordBatch {
    /// Checks a produced batch: magic, lengths (`bytes` are exactly one batch), counts (at least
    /// one record, one offset for each), producer fields, CRC-32C. Records are not decoded.
    ///
    /// # Errors
    /// [`BatchError`], never `Decompress` or `Record`. `max_bytes` bounds the whole batch.
    pub fn validate(bytes: Bytes, max_bytes: usize) -> Result<Self, BatchError> {
        if bytes.len() > max_bytes {
            return Err(BatchError::TooLarge {
                bytes: bytes.len(),
                max: max_bytes,
            });
        }
        let batch = Self::check_one(bytes, BatchHeader::check_produced)?;
        Ok(batch)
    }
    /// Checks a stored batch, which compaction may have left with gaps or without records.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_stored(bytes: Bytes) -> Result<Self, BatchError> {
        Self::check_one(bytes, |_| Ok(()))
    }
    fn check_one(
        bytes: Bytes,
        further: impl FnOnce(&BatchHeader) -> Result<(), BatchError>,
    ) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let (need, have) = (header.total_len(), bytes.len());
        if have < need {
            return Err(BatchError::Truncated { need, have });
        }
        if have > need {
            return Err(BatchError::TrailingBytes { batch: need, have });
        }
        further(&header)?;
        header.check_plausible()?;
        let computed = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        if computed != header.crc {
            return Err(BatchError::BadChecksum {
                stored: header.crc,
                computed,
            });
        }
        Ok(Self { bytes, header })
    }
    /// The header's values.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
    /// The whole batch.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The whole batch.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
    /// A fresh head for the place that the batch got; the rest is shared, not copied.
    #[must_use]
    pub fn stamp(&self, base: Offset, epoch: LeaderEpoch) -> StampedBatch {
        let head = self.header.head(base, epoch);
        // At least a header long, so the slice lies within.
        StampedBatch {
            head,
            body: self.bytes.slice(HEAD_LEN..),
        }
    }
    /// The same records with the broker's append time: attributes, maximum timestamp and checksum
    /// written anew. Copies the batch.
    #[must_use]
    pub fn with_log_append_time(&self, append_time: TimestampMs) -> Self {
        let attributes = self.header.attributes.with_log_append_time();
        self.rewrite(|header| {
            header.attributes = attributes;
            header.max_timestamp = append_time;
        })
    }
    /// The same records under another producer id, epoch or sequence, checksum written anew. For
    /// a producer that numbers its unsent batches anew. Copies the batch.
    #[must_use]
    pub fn with_producer(
        &self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: BatchSequence,
    ) -> Self {
        self.rewrite(|header| {
            header.producer_id = Some(id);
            header.producer_epoch = epoch;
            header.base_sequence = Some(base_sequence);
        })
    }
    fn rewrite(&self, change: impl FnOnce(&mut BatchHeader)) -> Self {
        let mut header = self.header;
        change(&mut header);
        let mut bytes = BytesMut::with_capacity(self.bytes.len());
        header.put(&mut bytes);
        bytes.put_slice(self.bytes.get(HEADER_LEN..).unwrap_or_default());
        header.crc = seal(&mut bytes);
        Self {
            bytes: bytes.freeze(),
            header,
        }
    }
    /// Decompresses within `limits` and iterates. Uncompressed records are slices of the batch.
    ///
    /// # Errors
    /// [`BatchError::Decompress`]; damage of single records comes out of the iterator.
    pub fn records(&self, limits: &DecodeLimits) -> Result<RecordIter, BatchError> {
        let stored = self.bytes.slice(HEADER_LEN..);
        let compression = self.header.attributes.compression();
        let records = super::decompress(compression, stored, limits.max_decompressed_bytes)?;
        Ok(RecordIter::new(&self.header, records, limits.max_headers))
    }
}

impl BatchHeader {
    /// Writes all 61 bytes; the inverse of [`Self::parse`].
    pub(super) fn put(&self, out: &mut impl BufMut) {
        out.put_u64(self.base_offset.0);
        out.put_u32(self.batch_length);
        out.put_i32(self.leader_epoch.map_or(-1, |epoch| epoch.0.cast_signed()));
        out.put_i8(self.magic);
        out.put_u32(self.crc);
        out.put_u16(self.attributes.bits());
        out.put_u32(self.last_offset_delta);
        out.put_i64(self.base_timestamp.0);
        out.put_i64(self.max_timestamp.0);
        out.put_i64(self.producer_id.map_or(-1, |id| id.0.cast_signed()));
        let epoch = self
            .producer_id
            .map(|_| self.producer_epoch.0.cast_signed());
        out.put_i16(epoch.unwrap_or(-1));
        out.put_i32(
            self.base_sequence
                .map_or(-1, |sequence| sequence.0.cast_signed()),
        );
        out.put_u32(self.record_count);
    }
    /// The header of a batch that is being built.
    pub(super) fn unplaced(attributes: Attributes) -> Self {
        Self {
            base_offset: Offset(0),
            batch_length: 0,
            leader_epoch: None,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: 0,
            base_timestamp: TimestampMs(-1),
            max_timestamp: TimestampMs(-1),
            producer_id: None,
            producer_epoch: ProducerEpoch(0),
            base_sequence: None,
            record_count: 0,
        }
    }
}

/// Computes the checksum of a whole batch and writes it into its place.
pub(super) fn seal(batch: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c(batch.get(CHECKED_FROM..).unwrap_or_default());
    if let Some(place) = batch.get_mut(CRC_AT..CHECKED_FROM) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
    crc
}

/// Iterates over the batches of a fetched region of whole batches, checking each as a stored one.
/// Ends after the first error, because nothing after it can be found.
#[must_use]
pub fn split_batches(bytes: Bytes) -> SplitBatches {
    SplitBatches { rest: bytes }
}

/// See [`split_batches`].
#[derive(Debug, Clone)]
pub struct SplitBatches {
    rest: Bytes,
}

impl SplitBatches {
    fn next_batch(&mut self) -> Result<RecordBatch, BatchError> {
        let need = BatchHeader::parse(&self.rest)?.total_len();
        if need > self.rest.len() {
            return Err(BatchError::Truncated {
                need,
                have: self.rest.len(),
            });
        }
        RecordBatch::validate_stored(self.rest.split_to(need))
    }
}

impl Iterator for SplitBatches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = self.next_batch();
        if batch.is_err() {
            self.rest.clear();
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for SplitBatches {}
