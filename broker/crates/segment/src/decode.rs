//! The one place of this crate that looks inside a batch.

#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use bytes::{Buf, Bytes};
use highwater_proto::{Offset, TimestampMs};

use crate::header::{HEADER_LEN, checksum_fits};

/// The first record of `batch` within `offsets` whose timestamp is `timestamp` or later.
pub(crate) fn first_record_from(
    batch: Bytes,
    timestamp: TimestampMs,
    offsets: Range<Offset>,
) -> Result<Option<(Offset, TimestampMs)>, String> {
    if !checksum_fits(&batch) {
        return Err("it does not fit its checksum".into());
    }
    records(batch, timestamp, offsets).ok_or_else(|| "its records are cut short".to_owned())
}

#[allow(clippy::option_option)]
fn records(
    mut batch: Bytes,
    timestamp: TimestampMs,
    offsets: Range<Offset>,
) -> Option<Option<(Offset, TimestampMs)>> {
    let mut header = batch.split_to_checked(HEADER_LEN)?;
    let base = header.get_u64();
    header.advance(19);
    let first_timestamp = header.get_i64();
    header.advance(22);
    let count = header.get_i32();
    for _ in 0..count {
        let len = usize::try_from(varint(&mut batch)?).ok()?;
        let mut record = batch.split_to_checked(len)?;
        record.split_to_checked(1)?;
        let at = TimestampMs(first_timestamp.checked_add(varint(&mut record)?)?);
        let offset = Offset(base.checked_add(u64::try_from(varint(&mut record)?).ok()?)?);
        if at >= timestamp && offsets.contains(&offset) {
            return Some(Some((offset, at)));
        }
    }
    Some(None)
}

trait SplitChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}

/// A zigzag varint.
fn varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.split_to_checked(1)?.first().copied()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}
