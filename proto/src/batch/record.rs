//! Records: reading them one by one out of a validated batch, each as slices of its bytes.
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, Bytes};

use super::varint::{self, VarintError};
use super::{BatchError, BatchHeader, RecordError};
use crate::{Offset, TimestampMs};

/// A header's key (UTF-8 by convention, not checked) and value.
pub type Header = (Bytes, Option<Bytes>);

/// What decoding may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes that the records of one batch may have after decompression.
    pub max_decompressed_bytes: usize,
    /// Headers that one record may have. A header takes two bytes on the wire and some sixty in
    /// memory.
    pub max_headers: usize,
}

impl Default for DecodeLimits {
    /// 256 MiB, four times the largest batch; 65,536 headers.
    fn default() -> Self {
        Self {
            max_decompressed_bytes: 256 << 20,
            max_headers: 1 << 16,
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its own time, or the batch's append time.
    pub timestamp: TimestampMs,
    /// Null and empty are two things.
    pub key: Option<Bytes>,
    /// Null (a tombstone) and empty are two things.
    pub value: Option<Bytes>,
    /// In their order, duplicate keys included.
    pub headers: Vec<Header>,
}

/// The records of one batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordIter {
    rest: Bytes,
    base_offset: Offset,
    base_timestamp: i64,
    append_time: Option<TimestampMs>,
    last_offset_delta: u32,
    least_offset_delta: u32,
    count: u32,
    number: u32,
    max_headers: usize,
    ended: bool,
}

impl RecordIter {
    pub(super) fn new(header: &BatchHeader, records: Bytes, max_headers: usize) -> Self {
        let by_broker = header.attributes.is_log_append_time();
        Self {
            rest: records,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp.0,
            append_time: by_broker.then_some(header.max_timestamp),
            last_offset_delta: header.last_offset_delta,
            least_offset_delta: 0,
            count: header.record_count,
            number: 0,
            max_headers,
            ended: false,
        }
    }
    /// Bytes of the records that are still to come.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }
    fn next_record(&mut self) -> Result<Record, RecordError> {
        let len = take_i32(&mut self.rest, "record length")?;
        let mut body = take(&mut self.rest, required(len, "record")?, "record")?;
        // The attributes of a record have no meaning so far.
        body.try_get_u8().map_err(|_| RecordError::Truncated {
            field: "attributes",
        })?;
        let timestamp_delta = take_i64(&mut body, "timestamp delta")?;
        let offset_delta = take_i32(&mut body, "offset delta")?;
        let record = Record {
            offset: self.offset(offset_delta)?,
            timestamp: self.timestamp(timestamp_delta)?,
            key: take_nullable(&mut body, "key")?,
            value: take_nullable(&mut body, "value")?,
            headers: take_headers(&mut body, self.max_headers)?,
        };
        if body.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::LeftOver { extra: body.len() })
        }
    }
    fn offset(&mut self, delta: i32) -> Result<Offset, RecordError> {
        let bad = RecordError::BadOffset { delta };
        let delta = u32::try_from(delta).map_err(|_| bad)?;
        if delta < self.least_offset_delta || delta > self.last_offset_delta {
            return Err(bad);
        }
        self.least_offset_delta = delta.saturating_add(1);
        Ok(self.base_offset.plus(u64::from(delta)))
    }
    fn timestamp(&self, delta: i64) -> Result<TimestampMs, RecordError> {
        if let Some(append_time) = self.append_time {
            return Ok(append_time);
        }
        let sum = self.base_timestamp.checked_add(delta);
        sum.map(TimestampMs)
            .ok_or(RecordError::BadTimestamp { delta })
    }
    fn step(&mut self) -> Option<Result<Record, RecordError>> {
        if self.ended {
            return None;
        }
        if self.number < self.count {
            return Some(self.next_record());
        }
        let extra = self.rest.len();
        (extra > 0).then_some(Err(RecordError::LeftOver { extra }))
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step()?;
        let number = self.number;
        self.number = number.saturating_add(1);
        self.ended = step.is_err();
        Some(step.map_err(|error| BatchError::Record { number, error }))
    }
}

impl std::iter::FusedIterator for RecordIter {}

fn number_error(error: VarintError, field: &'static str) -> RecordError {
    match error {
        VarintError::Truncated => RecordError::Truncated { field },
        VarintError::TooLong => RecordError::BadNumber { field },
    }
}

fn take_i32(from: &mut Bytes, field: &'static str) -> Result<i32, RecordError> {
    let (value, len) = varint::read_i32(from).map_err(|error| number_error(error, field))?;
    from.advance(len);
    Ok(value)
}

fn take_i64(from: &mut Bytes, field: &'static str) -> Result<i64, RecordError> {
    let (value, len) = varint::read_i64(from).map_err(|error| number_error(error, field))?;
    from.advance(len);
    Ok(value)
}

fn required(length: i32, field: &'static str) -> Result<usize, RecordError> {
    usize::try_from(length).map_err(|_| RecordError::BadLength { field, length })
}

fn take(from: &mut Bytes, len: usize, field: &'static str) -> Result<Bytes, RecordError> {
    if len > from.len() {
        return Err(RecordError::Truncated { field });
    }
    Ok(from.split_to(len))
}

fn take_nullable(from: &mut Bytes, field: &'static str) -> Result<Option<Bytes>, RecordError> {
    match take_i32(from, field)? {
        -1 => Ok(None),
        length => take(from, required(length, field)?, field).map(Some),
    }
}

fn take_headers(from: &mut Bytes, max: usize) -> Result<Vec<Header>, RecordError> {
    let field = "header count";
    let count = required(take_i32(from, field)?, field)?;
    // Each takes two bytes at least, so a count that lies is found before anything is reserved.
    if count > from.len() / 2 {
        return Err(RecordError::Truncated { field });
    }
    if count > max {
        return Err(RecordError::TooManyHeaders { count, max });
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let len = take_i32(from, "header key")?;
        let key = take(from, required(len, "header key")?, "header key")?;
        headers.push((key, take_nullable(from, "header value")?));
    }
    Ok(headers)
}
