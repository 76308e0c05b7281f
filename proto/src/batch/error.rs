//! What can be wrong with the bytes of a batch, and with a record handed to the builder.

use super::Compression;

/// Bytes that are no batch, or a batch whose records do not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch is cut short: {need} bytes needed, {have} there")]
    Truncated {
        /// Length of the batch, or of its header when not even that is there.
        need: usize,
        /// Length of what is there.
        have: usize,
    },
    /// More bytes than one batch where exactly one belongs.
    #[error("{have} bytes where one batch of {batch} bytes belongs")]
    TrailingBytes {
        /// Length of the batch.
        batch: usize,
        /// Length of what is there.
        have: usize,
    },
    /// Over the caller's limit.
    #[error("batch of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Length of the batch.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The length field cannot be true of any batch.
    #[error("batch length {length} is impossible")]
    BadLength {
        /// The field.
        length: i32,
    },
    /// Not version 2.
    #[error("batch has magic {magic}, only 2 is supported")]
    UnsupportedMagic {
        /// The field.
        magic: i8,
    },
    /// A compression number that is not assigned.
    #[error("batch has the unknown compression {id}")]
    UnknownCompression {
        /// The number.
        id: u8,
    },
    /// Offsets start at zero.
    #[error("batch has the negative base offset {base_offset}")]
    BadBaseOffset {
        /// The field.
        base_offset: i64,
    },
    /// Count and last offset do not agree, or cannot be true of this many bytes.
    #[error(
        "batch of {records_bytes} record bytes claims {count} records and last offset delta {last_offset_delta}"
    )]
    BadCount {
        /// The count field.
        count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
        /// Length of the (possibly compressed) records.
        records_bytes: usize,
    },
    /// Producer id, epoch and sequence do not go together.
    #[error("batch has producer id {id} with epoch {epoch} and sequence {sequence}")]
    BadProducer {
        /// The field.
        id: i64,
        /// The field.
        epoch: i16,
        /// The field.
        sequence: i32,
    },
    /// The checksum does not match.
    #[error("batch has checksum {stored:#010x}, its bytes have {computed:#010x}")]
    BadChecksum {
        /// The field.
        stored: u32,
        /// CRC-32C from the attributes on.
        computed: u32,
    },
    /// The records do not decompress.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record does not decode.
    #[error("record {number} of the batch: {error}")]
    Record {
        /// Its number in the batch, from 0.
        number: u32,
        /// What is wrong.
        error: RecordError,
    },
}

/// Compressed records that do not decompress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The compressed bytes are damaged.
    #[error("{compression} data is damaged: {reason}")]
    Damaged {
        /// What they should have been.
        compression: Compression,
        /// What the decoder says.
        reason: String,
    },
    /// More bytes come out than the caller allows.
    #[error("{compression} data holds more than the {max} bytes allowed")]
    TooLarge {
        /// How they are compressed.
        compression: Compression,
        /// The limit in bytes.
        max: usize,
    },
}

/// A record that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A field reaches beyond its record, or a record beyond the batch.
    #[error("{field} reaches beyond the end")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// A variable-length number is longer than its type.
    #[error("{field} is no valid variable-length number")]
    BadNumber {
        /// Which field.
        field: &'static str,
    },
    /// A negative length other than the -1 that means null, where null is allowed.
    #[error("{field} has the length {length}")]
    BadLength {
        /// Which field.
        field: &'static str,
        /// Its value.
        length: i32,
    },
    /// The record is longer than its fields, or the batch longer than its records.
    #[error("{extra} bytes left over")]
    LeftOver {
        /// How many.
        extra: usize,
    },
    /// Offsets must rise and stay within the batch.
    #[error("offset delta {delta} is out of order or beyond the last")]
    BadOffset {
        /// The field.
        delta: i32,
    },
    /// Base timestamp and delta do not fit 64 bits together.
    #[error("timestamp delta {delta} overflows")]
    BadTimestamp {
        /// The field, in milliseconds.
        delta: i64,
    },
    /// More headers than the caller allows.
    #[error("{count} headers, {max} allowed")]
    TooManyHeaders {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
}

/// A record that cannot be added to a batch. The builder is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The format's lengths are signed 32-bit numbers.
    #[error("record of {bytes} bytes does not fit the batch format")]
    TooLarge {
        /// Length of the record.
        bytes: usize,
    },
    /// The batch cannot hold another record.
    #[error("batch is full")]
    Full,
    /// Too far from the first record's time.
    #[error("timestamp {timestamp_ms} is too far from the batch's first, {base_ms}")]
    BadTimestamp {
        /// The record's, in milliseconds since the epoch.
        timestamp_ms: i64,
        /// The first record's, in milliseconds since the epoch.
        base_ms: i64,
    },
}
