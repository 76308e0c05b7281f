//! The few header fields by which a stored batch is found.

#![deny(clippy::indexing_slicing)]

use highwater_proto::batch::BatchHeader;
pub(crate) use highwater_proto::batch::{HEAD_LEN, HEADER_LEN, LENGTH_END};

/// The checksum covers the batch from the attributes on.
const CHECKED_FROM: usize = 21;

/// Place and extent of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub base_offset: u64,
    /// The offset after the batch's last.
    pub next_offset: u64,
    /// Bytes of the whole batch.
    pub total_len: u64,
    pub max_timestamp: i64,
    /// The batch's own checksum.
    crc: u32,
}

impl BatchHead {
    /// Reads the header of a batch that is stored with `left` bytes of the segment from its start,
    /// and that may not begin below `least_offset`.
    pub(crate) fn parse_stored(
        header: &[u8],
        left: u64,
        least_offset: u64,
    ) -> Result<Self, &'static str> {
        let header = BatchHeader::parse(header).map_err(|_| "no batch header where one must be")?;
        let head = Self {
            base_offset: header.base_offset.0,
            next_offset: header.next_offset().0,
            total_len: header.total_len() as u64,
            max_timestamp: header.max_timestamp.0,
            crc: header.crc,
        };
        if head.total_len > left {
            return Err("a batch reaches beyond the segment's length");
        }
        if head.base_offset < least_offset {
            return Err("a batch lies below the one before it");
        }
        Ok(head)
    }
    /// Whether `batch`, which is exactly this batch, fits its checksum.
    pub(crate) fn checksum_fits(&self, batch: &[u8]) -> bool {
        batch
            .get(CHECKED_FROM..)
            .is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }
}
