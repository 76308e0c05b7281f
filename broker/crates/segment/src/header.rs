//! The few header fields by which a stored batch is found.

#![deny(clippy::indexing_slicing)]

/// Bytes of a record batch's header (Kafka's format, magic 2).
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes of the part that apply writes afresh: base offset, length, leader epoch.
pub(crate) const HEAD_LEN: usize = 16;
/// The length field does not count itself and the base offset before it.
pub(crate) const LENGTH_SKIPS: usize = 12;
const MAGIC: u8 = 2;
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
}

fn field<const N: usize>(header: &[u8], at: usize) -> Option<[u8; N]> {
    header.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl BatchHead {
    /// Reads the header of a batch that is stored with `left` bytes of the segment from its start,
    /// and that may not begin below `least_offset`.
    pub(crate) fn parse_stored(
        header: &[u8],
        left: u64,
        least_offset: u64,
    ) -> Result<Self, &'static str> {
        let head = Self::parse(header).ok_or("no batch header where one must be")?;
        if head.total_len > left {
            return Err("a batch reaches beyond the segment's length");
        }
        if head.base_offset < least_offset {
            return Err("a batch lies below the one before it");
        }
        Ok(head)
    }
    fn parse(header: &[u8]) -> Option<Self> {
        let base_offset = u64::try_from(i64::from_be_bytes(field(header, 0)?)).ok()?;
        let length = usize::try_from(i32::from_be_bytes(field(header, 8)?)).ok()?;
        let last_delta = u64::try_from(i32::from_be_bytes(field(header, 23)?)).ok()?;
        let max_timestamp = i64::from_be_bytes(field(header, 35)?);
        let [magic] = field(header, 16)?;
        let record_count = i32::from_be_bytes(field(header, 57)?);
        if magic != MAGIC || length < HEADER_LEN - LENGTH_SKIPS || record_count < 0 {
            return None;
        }
        Some(Self {
            base_offset,
            next_offset: base_offset.checked_add(last_delta)?.checked_add(1)?,
            total_len: (length + LENGTH_SKIPS) as u64,
            max_timestamp,
        })
    }
}

/// Whether the batch's own checksum fits its bytes. `batch` is exactly one batch.
pub(crate) fn checksum_fits(batch: &[u8]) -> bool {
    let (Some(stored), Some(checked)) = (field(batch, 17), batch.get(CHECKED_FROM..)) else {
        return false;
    };
    u32::from_be_bytes(stored) == crc32c::crc32c(checked)
}
