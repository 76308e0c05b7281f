//! A batch without some of its records, as compaction leaves it.
//!
//! What stays are the bytes of the records themselves, their offsets and timestamps included; the
//! header keeps base offset, last offset, base timestamp and producer. So it does not matter in how
//! many steps records go: the same records left of the same batch are the same bytes.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{HEADER_LEN, LENGTH_END};
use super::record_batch::{RecordBatch, seal};
use super::{BatchError, Compression, DecodeLimits, Record, RecordIter};
use crate::TimestampMs;

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// Some of its records.
    Some(Bytes),
}

impl RecordBatch {
    /// Keeps the records that `keep` says yes to, in their order, compressed as the batch is.
    ///
    /// # Errors
    /// [`BatchError`] when the records cannot be decoded or compressed again; the batch is to be
    /// kept as it is then.
    pub fn retain(
        &self,
        limits: &DecodeLimits,
        mut keep: impl FnMut(&Record) -> bool,
    ) -> Result<Retained, BatchError> {
        let header = self.header();
        let compression = header.attributes.compression();
        let stored = self.bytes().slice(HEADER_LEN..);
        let records = super::decompress(compression, stored, limits.max_decompressed_bytes)?;
        let mut iter = RecordIter::new(header, records.clone(), limits.max_headers);
        let mut kept = BytesMut::new();
        let (mut count, mut all) = (0_u32, true);
        let mut newest = TimestampMs(i64::MIN);
        loop {
            let from = records.len() - iter.left();
            let Some(record) = iter.next() else { break };
            let record = record?;
            let upto = records.len() - iter.left();
            if keep(&record) {
                kept.put_slice(records.get(from..upto).unwrap_or_default());
                newest = newest.max(record.timestamp);
                count += 1;
            } else {
                all = false;
            }
        }
        if count == 0 {
            return Ok(Retained::Nothing);
        }
        if all {
            return Ok(Retained::All);
        }
        self.rebuilt(compression, &kept, (count, newest))
            .map(Retained::Some)
    }

    fn rebuilt(
        &self,
        compression: Compression,
        records: &[u8],
        (count, newest): (u32, TimestampMs),
    ) -> Result<Bytes, BatchError> {
        let mut header = *self.header();
        header.record_count = count;
        // With the broker's time all records have the same.
        header.max_timestamp = newest;
        let mut batch = vec![0; HEADER_LEN];
        super::compress::compress(compression, records, &mut batch).map_err(|error| {
            BatchError::Decompress(super::DecompressError::Damaged {
                compression,
                reason: format!("cannot be compressed again: {error}"),
            })
        })?;
        // Fewer records of a batch that fitted, compressed the same way: far below 4 GiB.
        header.batch_length = u32::try_from(batch.len() - LENGTH_END).unwrap_or(u32::MAX);
        let (mut place, _) = batch.split_at_mut(HEADER_LEN);
        header.put(&mut place);
        seal(&mut batch);
        Ok(Bytes::from(batch))
    }
}

#[cfg(test)]
#[path = "retain_tests.rs"]
mod tests;
