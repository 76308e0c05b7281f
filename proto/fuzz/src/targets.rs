//! What each fuzz target does with arbitrary bytes. Also run by the normal tests, over the corpus.

use bytes::Bytes;
use highwater_proto::batch::{
    BatchBuilder, BatchHeader, Compression, ControlKind, DecodeLimits, RecordBatch, decompress,
    split_batches,
};
use highwater_proto::{LeaderEpoch, Offset, TimestampMs};

/// Small, so that a bomb is found by the limit and not by the machine's memory.
pub const LIMITS: DecodeLimits = DecodeLimits {
    max_decompressed_bytes: 4 << 20,
    max_headers: 1 << 12,
};

/// A target's name, which is also its corpus's folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 4] = [
    ("validate", validate),
    ("records", records),
    ("split", split),
    ("decompress", thin),
];

/// Header, validation, stamp, append time.
pub fn validate(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let parsed = BatchHeader::parse(data);
    let stored = RecordBatch::validate_stored(bytes.clone());
    let Ok(batch) = RecordBatch::validate(bytes.clone(), data.len()) else {
        return;
    };
    assert_eq!(stored.as_ref(), Ok(&batch));
    assert_eq!(parsed.as_ref(), Ok(batch.header()));
    assert!(RecordBatch::validate(bytes, data.len() - 1).is_err());
    let stamped = batch.stamp(Offset(41), LeaderEpoch(7)).to_bytes();
    let stamped = RecordBatch::validate(stamped, data.len()).expect("a stamp keeps it valid");
    assert_eq!(stamped.header().base_offset, Offset(41));
    assert_eq!(stamped.header().leader_epoch, Some(LeaderEpoch(7)));
    assert_eq!(stamped.bytes()[16..], data[16..]);
    let timed = batch.with_log_append_time(TimestampMs(5)).into_bytes();
    let timed = RecordBatch::validate(timed, data.len()).expect("so does an append time");
    assert_eq!(timed.header().max_timestamp, TimestampMs(5));
}

/// Decoding. The checksum is made right first, so that damage reaches the decoder.
pub fn records(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(checked) = data.get(21..) {
        bytes[17..21].copy_from_slice(&crc32c::crc32c(checked).to_be_bytes());
    }
    let Ok(batch) = RecordBatch::validate_stored(bytes.into()) else {
        return;
    };
    let Ok(records) = batch.records(&LIMITS) else {
        return;
    };
    let mut builder = BatchBuilder::new(Compression::None);
    let mut found = Vec::new();
    for record in records {
        let Ok(record) = record else { return };
        assert!(record.offset >= batch.header().base_offset);
        assert!(record.offset <= batch.header().last_offset());
        record.key.as_deref().map(ControlKind::from_key);
        if builder.append_record(&record).is_err() {
            return;
        }
        found.push(record);
    }
    assert_eq!(found.len() as u64, u64::from(batch.header().record_count));
    again(builder, found);
}

/// What was read can be written, and read as the same.
fn again(builder: BatchBuilder, mut found: Vec<highwater_proto::batch::Record>) {
    for (place, record) in found.iter_mut().enumerate() {
        record.offset = Offset(place as u64);
    }
    if found.is_empty() {
        return;
    }
    let built = RecordBatch::validate(builder.build(), usize::MAX).expect("valid");
    let read: Result<Vec<_>, _> = built.records(&LIMITS).expect("uncompressed").collect();
    assert_eq!(read.as_ref(), Ok(&found));
}

/// A region of batches.
pub fn split(data: &[u8]) {
    let mut reached = 0;
    for batch in split_batches(Bytes::copy_from_slice(data)) {
        let Ok(batch) = batch else { return };
        assert_eq!(
            batch.bytes()[..],
            data[reached..reached + batch.bytes().len()]
        );
        reached += batch.bytes().len();
    }
    assert_eq!(reached, data.len());
}

/// The decompressors alone: the first byte picks one.
pub fn thin(data: &[u8]) {
    let Some((pick, data)) = data.split_first() else {
        return;
    };
    let Some(compression) = Compression::from_id(pick % 5) else {
        return;
    };
    let max = LIMITS.max_decompressed_bytes;
    if let Ok(out) = decompress(compression, Bytes::copy_from_slice(data), max) {
        assert!(out.len() <= max.max(data.len()));
    }
}
