//! The one place of this crate that looks inside a batch.

use std::ops::Range;

use bytes::Bytes;
use highwater_proto::batch::{BatchError, DecodeLimits, RecordBatch};
use highwater_proto::{Offset, TimestampMs};

/// The first record of `batch` within `offsets` whose timestamp is `timestamp` or later.
pub(crate) fn first_record_from(
    batch: Bytes,
    timestamp: TimestampMs,
    offsets: &Range<Offset>,
) -> Result<Option<(Offset, TimestampMs)>, BatchError> {
    let batch = RecordBatch::validate_stored(batch)?;
    for record in batch.records(&DecodeLimits::default())? {
        let record = record?;
        if record.timestamp >= timestamp && offsets.contains(&record.offset) {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
