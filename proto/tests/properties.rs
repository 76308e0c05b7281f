//! Properties of batches: what goes in comes out, and every kind of damage is an error.

use bytes::Bytes;
use highwater_proto::batch::{
    AppendError, BatchBuilder, BatchError, Compression, DecodeLimits, HEADER_LEN, Record,
    RecordBatch, decompress, split_batches,
};
use highwater_proto::{BatchSequence, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    // Few distinct header keys, so that duplicates are common.
    let header = ("[ab]{0,2}".prop_map(Bytes::from), option::of(bytes(20)));
    let time = prop_oneof![Just(-1), 0i64..1 << 45, (1i64 << 40)..(1 << 40) + 1000];
    (
        time,
        option::of(bytes(30)),
        option::of(bytes(200)),
        vec(header, 0..5),
    )
        .prop_map(|(time, key, value, headers)| {
            let timestamp = TimestampMs(time);
            Record {
                offset: Offset(0),
                timestamp,
                key,
                value,
                headers,
            }
        })
}

fn compression() -> impl Strategy<Value = Compression> {
    (0u8..5).prop_map(|id| Compression::from_id(id).expect("assigned"))
}

fn producer() -> impl Strategy<Value = Option<(ProducerId, ProducerEpoch, BatchSequence)>> {
    let id = (0..=i64::MAX as u64).prop_map(ProducerId);
    let epoch = (0..=i16::MAX as u16).prop_map(ProducerEpoch);
    let sequence = (0..=i32::MAX as u32).prop_map(BatchSequence);
    option::of((id, epoch, sequence))
}

fn build(compression: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.append_record(record).expect("room");
    }
    builder.build()
}

fn validate(bytes: impl Into<Bytes>) -> Result<RecordBatch, BatchError> {
    RecordBatch::validate(bytes.into(), usize::MAX)
}

fn read(batch: &RecordBatch) -> Result<Vec<Record>, BatchError> {
    batch.records(&DecodeLimits::default())?.collect()
}

fn placed(records: &[Record], base: u64) -> Vec<Record> {
    let place = |(number, record): (usize, &Record)| {
        let offset = Offset(base + number as u64);
        Record {
            offset,
            ..record.clone()
        }
    };
    records.iter().enumerate().map(place).collect()
}

/// Bits that the checksum does not cover and a broker overwrites.
fn is_outside_the_checksum(byte: usize) -> bool {
    byte < 8 || (12..16).contains(&byte)
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        records in vec(record(), 1..20),
        compression in compression(),
        producer in producer(),
        base in 0..i64::MAX as u64 / 2,
        epoch in 0..=i32::MAX as u32,
    ) {
        let mut builder = BatchBuilder::new(compression);
        let mut bound = builder.size_estimate();
        for record in &records {
            let headers_len = record.headers.iter()
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
            bound += BatchBuilder::record_bound(
                record.key.as_ref().map_or(0, Bytes::len),
                record.value.as_ref().map_or(0, Bytes::len),
                record.headers.len(),
                headers_len,
            );
            builder.append_record(record).expect("room");
        }
        prop_assert!(builder.size_estimate() <= bound);
        if let Some((id, epoch, sequence)) = producer {
            builder.set_producer(id, epoch, sequence);
        }
        let estimate = builder.size_estimate();
        let batch = validate(builder.build()).expect("valid");
        if compression == Compression::None {
            prop_assert_eq!(batch.bytes().len(), estimate);
        }
        let header = *batch.header();
        prop_assert_eq!(header.record_count as usize, records.len());
        prop_assert_eq!(header.attributes.compression(), compression);
        prop_assert_eq!(header.base_timestamp, records[0].timestamp);
        prop_assert_eq!(Some(header.max_timestamp), records.iter().map(|r| r.timestamp).max());
        let found = header.producer_id.zip(header.base_sequence);
        let found = found.map(|(id, sequence)| (id, header.producer_epoch, sequence));
        prop_assert_eq!(found, producer);
        let stamped = batch.stamp(Offset(base), LeaderEpoch(epoch)).to_bytes();
        let stamped = RecordBatch::validate_stored(stamped).expect("valid");
        prop_assert_eq!(stamped.header().leader_epoch, Some(LeaderEpoch(epoch)));
        prop_assert_eq!(stamped.header().next_offset(), Offset(base + records.len() as u64));
        prop_assert_eq!(read(&stamped).expect("decodes"), placed(&records, base));
    }

    #[test]
    fn append_time_is_every_records_time(
        records in vec(record(), 1..5), compression in compression(), time in 0i64..1 << 45,
    ) {
        let batch = validate(build(compression, &records)).expect("valid");
        let timed = batch.with_log_append_time(TimestampMs(time));
        prop_assert_eq!(validate(timed.bytes().clone()), Ok(timed.clone()));
        for (found, record) in read(&timed).expect("decodes").iter().zip(&records) {
            prop_assert_eq!(found.timestamp, TimestampMs(time));
            prop_assert_eq!(&found.value, &record.value);
        }
    }

    #[test]
    fn every_truncation_is_an_error(
        records in vec(record(), 1..4), compression in compression(),
    ) {
        let whole = build(compression, &records);
        for len in 0..whole.len() {
            prop_assert!(validate(whole.slice(..len)).is_err(), "{} of {}", len, whole.len());
            let mut split = split_batches(whole.slice(..len));
            prop_assert_eq!(split.next().map(|batch| batch.is_err()), (len > 0).then_some(true));
            prop_assert!(split.next().is_none());
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        prop_assert!(validate(longer).is_err());
    }

    #[test]
    fn every_flipped_bit_is_an_error(
        records in vec(record(), 1..3), compression in compression(),
    ) {
        let whole = build(compression, &records);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            let found = validate(bytes);
            // The sign of the base offset is checked although it is outside the checksum.
            if bit > 0 && is_outside_the_checksum(bit / 8) {
                let found = found.expect("a place is no part of the content");
                prop_assert_eq!(&found.bytes()[16..], &whole[16..]);
            } else {
                prop_assert!(found.is_err(), "bit {}", bit);
            }
        }
    }

    /// Damage that the checksum does not show, because it was there when the batch was made.
    #[test]
    fn damaged_records_under_a_right_checksum_never_panic(
        records in vec(record(), 1..6),
        compression in compression(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = build(compression, &records).to_vec();
        for (at, value) in damage {
            let at = HEADER_LEN + at.index(bytes.len() - HEADER_LEN);
            bytes[at] = value;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = validate(bytes).expect("records are not decoded");
        if let Ok(found) = read(&batch) {
            prop_assert_eq!(found.len(), records.len());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(data in vec(any::<u8>(), 0..300)) {
        let _ = validate(data.clone());
        prop_assert!(split_batches(data.clone().into()).count() <= data.len());
        for compression in Compression::ALL {
            let _ = decompress(compression, data.clone().into(), 1 << 20);
        }
    }

    #[test]
    fn arbitrary_bytes_behind_a_right_header_never_panic(
        data in vec(any::<u8>(), 0..300), compression in compression(), count in 1u32..40,
    ) {
        let records = [Record {
            offset: Offset(0), timestamp: TimestampMs(0), key: None, value: None, headers: vec![],
        }];
        let mut bytes = build(Compression::None, &records).to_vec();
        bytes.truncate(HEADER_LEN);
        bytes.extend_from_slice(&data);
        let length = u32::try_from(bytes.len() - 12).expect("short");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = compression.id();
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(batch) = validate(bytes) {
            let _ = read(&batch);
        }
    }

    #[test]
    fn joined_batches_split_into_themselves(
        batches in vec((compression(), vec(record(), 1..4)), 0..5),
    ) {
        let whole: Vec<Bytes> = batches.iter().map(|(kind, records)| build(*kind, records)).collect();
        let split: Result<Vec<_>, _> = split_batches(whole.concat().into()).collect();
        let split: Vec<Bytes> =
            split.expect("valid").into_iter().map(RecordBatch::into_bytes).collect();
        prop_assert_eq!(split, whole);
    }
}

#[test]
fn no_records_are_no_bytes() {
    assert!(BatchBuilder::new(Compression::Zstd).build().is_empty());
    assert_eq!(
        validate(Bytes::new()),
        Err(BatchError::Truncated {
            need: HEADER_LEN,
            have: 0
        })
    );
}

#[test]
fn a_time_too_far_from_the_first_is_refused_and_changes_nothing() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder
        .append(TimestampMs(i64::MIN), Some(b"a"), None, [])
        .expect("room");
    let before = builder.clone().build();
    let refused = builder.append(TimestampMs(1), Some(b"b"), None, []);
    assert_eq!(
        refused,
        Err(AppendError::BadTimestamp {
            timestamp_ms: 1,
            base_ms: i64::MIN
        })
    );
    assert_eq!(builder.build(), before);
}

#[test]
fn a_batch_over_the_limit_is_refused_by_its_length() {
    let records = [Record {
        offset: Offset(0),
        timestamp: TimestampMs(0),
        key: None,
        value: Some(Bytes::from_static(&[7; 100])),
        headers: vec![],
    }];
    let bytes = build(Compression::None, &records);
    let refused = RecordBatch::validate(bytes.clone(), bytes.len() - 1);
    assert_eq!(
        refused,
        Err(BatchError::TooLarge {
            bytes: bytes.len(),
            max: bytes.len() - 1
        })
    );
}
