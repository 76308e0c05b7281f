//! Builds a batch: records are encoded straight into the buffer that becomes it.

use bytes::Bytes;

use super::record_batch::seal;
use super::varint::{len_i64, put_i64};
use super::{AppendError, Attributes, BatchHeader, Compression, HEADER_LEN, LENGTH_END, Record};
use crate::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs};

/// What the format's signed 32-bit lengths allow, less what compression may add.
const MAX_BATCH: usize = i32::MAX as usize / 2;

/// Collects records and builds one batch of them.
///
/// Uncompressed batches are, byte for byte, what Kafka's own client builds of the same records.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Room for the header, then the records as they are on the wire.
    buffer: Vec<u8>,
    header: BatchHeader,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 0)
    }
    /// An empty batch with room for `bytes` before the buffer must grow.
    #[must_use]
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(HEADER_LEN));
        buffer.resize(HEADER_LEN, 0);
        Self {
            buffer,
            header: BatchHeader::unplaced(Attributes::new(compression)),
        }
    }
    /// Makes the batch idempotent.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base: BatchSequence) -> Self {
        self.set_producer(id, epoch, base);
        self
    }
    /// Makes the batch idempotent; may be called at any time before [`Self::build`].
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, base: BatchSequence) {
        self.header.producer_id = Some(id);
        self.header.producer_epoch = epoch;
        self.header.base_sequence = Some(base);
    }
    /// Makes the batch part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_transactional();
        self
    }
    /// Makes it a batch of markers.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_control();
        self
    }
    /// Adds a record. Headers keep their order and duplicates; they are walked twice.
    ///
    /// # Errors
    /// [`AppendError`]; the builder is then as it was before.
    pub fn append<'a, H>(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), AppendError>
    where
        H: IntoIterator<Item = (&'a [u8], Option<&'a [u8]>), IntoIter: Clone>,
    {
        let headers = headers.into_iter();
        let count = self.header.record_count;
        let first = count == 0;
        let base_ms = if first {
            timestamp.0
        } else {
            self.header.base_timestamp.0
        };
        let time_delta = timestamp
            .0
            .checked_sub(base_ms)
            .ok_or(AppendError::BadTimestamp {
                timestamp_ms: timestamp.0,
                base_ms,
            })?;
        let header_count = headers.clone().count();
        let len = 1
            + len_i64(time_delta)
            + len_i64(i64::from(count))
            + nullable_len(key)
            + nullable_len(value)
            + len_i64(header_count as i64)
            + headers
                .clone()
                .map(|(key, value)| header_len(key, value))
                .sum::<usize>();
        self.check_room(len)?;
        let out = &mut self.buffer;
        out.reserve(len_i64(len as i64) + len);
        put_i64(out, len as i64);
        out.push(0);
        put_i64(out, time_delta);
        put_i64(out, i64::from(count));
        put_nullable(out, key);
        put_nullable(out, value);
        put_i64(out, header_count as i64);
        for (key, value) in headers {
            put_nullable(out, Some(key));
            put_nullable(out, value);
        }
        self.count(timestamp, base_ms);
        Ok(())
    }
    /// Adds a record as it was read. Its offset is not kept.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_record(&mut self, record: &Record) -> Result<(), AppendError> {
        let headers = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_deref()));
        self.append(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        )
    }
    fn check_room(&self, record_len: usize) -> Result<(), AppendError> {
        if record_len > MAX_BATCH - HEADER_LEN - 5 {
            return Err(AppendError::TooLarge { bytes: record_len });
        }
        let full = self.buffer.len() + record_len + 5 > MAX_BATCH;
        if full || self.header.record_count == i32::MAX as u32 {
            return Err(AppendError::Full);
        }
        Ok(())
    }
    fn count(&mut self, timestamp: TimestampMs, base_ms: i64) {
        let header = &mut self.header;
        header.max_timestamp = match header.record_count {
            0 => timestamp,
            _ => header.max_timestamp.max(timestamp),
        };
        header.base_timestamp = TimestampMs(base_ms);
        header.last_offset_delta = header.record_count;
        header.record_count += 1;
    }
    /// Records so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.header.record_count
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }
    /// Length of the batch in bytes, before compression.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        self.buffer.len()
    }
    /// The most that a record of these lengths adds to [`Self::size_estimate`], in bytes.
    /// `headers_len` is the sum of header keys and values.
    #[must_use]
    pub const fn record_bound(
        key_len: usize,
        value_len: usize,
        header_count: usize,
        headers_len: usize,
    ) -> usize {
        // Length, attributes, two deltas, two lengths and a count; two lengths for each header.
        const FIXED: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        FIXED + key_len + value_len + headers_len + 10 * header_count
    }
    /// Compresses, fills in the header and returns the batch, with base offset 0 and no leader
    /// epoch. Of no records, no bytes. Uncompressed records are not copied.
    ///
    /// Should the compressor fail, the batch is built without compression.
    #[must_use]
    pub fn build(self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let Self { buffer, mut header } = self;
        let mut batch = match header.attributes.compression() {
            Compression::None => buffer,
            kind => compressed(kind, &buffer).unwrap_or_else(|| {
                let bits = header.attributes.bits() & !u16::from(kind.id());
                header.attributes = Attributes::from_bits(bits).unwrap_or(header.attributes);
                buffer
            }),
        };
        header.batch_length = (batch.len() - LENGTH_END) as u32;
        let (mut place, _) = batch.split_at_mut(HEADER_LEN);
        header.put(&mut place);
        seal(&mut batch);
        Bytes::from(batch)
    }
}

/// Room for a header, then the compressed records; `None` when that is not possible.
fn compressed(kind: Compression, buffer: &[u8]) -> Option<Vec<u8>> {
    let records = buffer.get(HEADER_LEN..)?;
    let mut batch = Vec::with_capacity(HEADER_LEN + records.len() / 2);
    batch.resize(HEADER_LEN, 0);
    super::compress::compress(kind, records, &mut batch).ok()?;
    (batch.len() <= i32::MAX as usize).then_some(batch)
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_i64(bytes.len() as i64) + bytes.len())
}

fn header_len(key: &[u8], value: Option<&[u8]>) -> usize {
    nullable_len(Some(key)) + nullable_len(value)
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return put_i64(out, -1);
    };
    put_i64(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}
