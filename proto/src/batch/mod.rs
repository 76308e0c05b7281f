//! Kafka RecordBatch v2: header view, validation, builder, iterator.
//!
//! A broker validates a batch ([`RecordBatch::validate`]), gives it its place
//! ([`RecordBatch::stamp`]) and serves it without decoding a record; clients build
//! ([`BatchBuilder`]) and read ([`RecordBatch::records`]). `proto/FORMAT.md` describes the bytes.

mod attributes;
mod builder;
mod compress;
mod control;
mod decompress;
mod error;
mod header;
mod record;
mod record_batch;
mod retain;
mod varint;
mod zstd;

pub use attributes::{Attributes, Compression, UnknownCompression};
pub use builder::BatchBuilder;
pub use control::ControlKind;
pub use decompress::decompress;
pub use error::{AppendError, BatchError, DecompressError, RecordError};
pub use header::{BatchHeader, HEAD_LEN, HEADER_LEN, LENGTH_END};
pub use record::{DecodeLimits, Header, Record, RecordIter};
pub use record_batch::{RecordBatch, SplitBatches, StampedBatch, split_batches};
pub use retain::Retained;
