//! What is left of a batch, byte by byte.

use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;
use crate::{BatchSequence, LeaderEpoch, Offset, ProducerEpoch, ProducerId};

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Ten records of a producer, stored at offset 100 under epoch 3.
fn batch(compression: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression);
    builder.set_producer(ProducerId(9), ProducerEpoch(2), BatchSequence(40));
    for n in 0..10_i64 {
        let (key, value) = (format!("key {}", n % 4), format!("value {n} ").repeat(20));
        let headers = [(b"h".as_slice(), (n % 2 == 0).then_some(b"x".as_slice()))];
        let time = TimestampMs(1_000 + n * 7 % 10);
        let added = builder.append(time, Some(key.as_bytes()), Some(value.as_bytes()), headers);
        added.expect("fits");
    }
    let produced = RecordBatch::validate(builder.build(), usize::MAX).expect("valid");
    let stored = produced.stamp(Offset(100), LeaderEpoch(3)).to_bytes();
    RecordBatch::validate_stored(stored).expect("valid")
}

fn keep(batch: &RecordBatch, mask: u16) -> Retained {
    let wanted = |record: &Record| mask & (1 << (record.offset.0 - 100)) != 0;
    batch
        .retain(&DecodeLimits::default(), wanted)
        .expect("decodes")
}

fn records(batch: &RecordBatch) -> Vec<Record> {
    let records = batch.records(&DecodeLimits::default()).expect("decodes");
    records.collect::<Result<_, _>>().expect("whole")
}

#[test]
fn records_that_stay_keep_offset_time_and_content_and_the_batch_its_place() {
    for compression in ALL {
        let whole = batch(compression);
        assert_eq!(keep(&whole, 0x3ff), Retained::All);
        assert_eq!(keep(&whole, 0), Retained::Nothing);
        let Retained::Some(bytes) = keep(&whole, 0b10_0110) else {
            panic!("some of it");
        };
        let left = RecordBatch::validate_stored(bytes).expect("valid");
        let all = records(&whole);
        let stays = |at: &usize| [1, 2, 5].contains(at);
        let expected = all.into_iter().enumerate().filter(|(at, _)| stays(at));
        let expected: Vec<Record> = expected.map(|(_, record)| record).collect();
        assert_eq!(records(&left), expected);
        let (was, is) = (whole.header(), left.header());
        assert_eq!((is.record_count, is.max_timestamp), (3, TimestampMs(1_007)));
        let unchanged = |header: &crate::batch::BatchHeader| crate::batch::BatchHeader {
            batch_length: 0,
            crc: 0,
            record_count: 0,
            max_timestamp: TimestampMs(0),
            ..*header
        };
        assert_eq!(unchanged(is), unchanged(was));
    }
}

/// Replicas of two releases compact the same batches: what a compressor makes of them must not change
/// unnoticed. If one of these changes, batches must be compressed as before below a new feature level.
#[test]
fn what_is_compressed_again_is_the_same_in_every_release() {
    let sums = ALL.map(|compression| {
        let Retained::Some(bytes) = keep(&batch(compression), 0b11_0101_0110) else {
            panic!("some of it");
        };
        (bytes.len(), crc32c::crc32c(&bytes))
    });
    assert_eq!(sums, GOLDEN);
}

const GOLDEN: [(usize, u32); 5] = [
    (1127, 4_274_635_786),
    (186, 1_304_895_350),
    (247, 4_150_355_054),
    (220, 318_501_572),
    (254, 1_377_845_048),
];

proptest! {
    #[test]
    fn it_does_not_matter_in_how_many_steps_records_go(first: u16, second: u16, kind in prop::sample::select(&ALL[..])) {
        let whole = batch(kind);
        let (first, both) = (first & 0x3ff, first & second & 0x3ff);
        let at_once = keep(&whole, both);
        let in_between = match keep(&whole, first) {
            Retained::All => whole,
            Retained::Nothing => {
                prop_assert_eq!(at_once, Retained::Nothing);
                return Ok(());
            }
            Retained::Some(bytes) => RecordBatch::validate_stored(bytes).expect("valid"),
        };
        let in_steps = match keep(&in_between, both) {
            Retained::All if both != 0x3ff => Retained::Some(in_between.bytes().clone()),
            other => other,
        };
        prop_assert_eq!(in_steps, at_once);
    }
}
