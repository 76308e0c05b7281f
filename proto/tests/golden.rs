//! Batches and hashes of Kafka's own client library, and ours as that library read them.

#[path = "common/mod.rs"]
mod common;

use bytes::Bytes;
use common::{golden, goldens, records, unhex};
use highwater_proto::batch::{
    BatchBuilder, BatchHeader, Compression, ControlKind, Record, RecordBatch, split_batches,
};
use highwater_proto::{
    BatchSequence, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs, murmur2,
    partition_for_key,
};
use serde_json::Value;

#[test]
fn kafkas_batches_read_as_kafka_reads_them() {
    let all = goldens("kafka-");
    assert!(all.len() >= 20, "{} golden batches", all.len());
    for (name, bytes, expected) in all {
        check(&name, bytes, &expected);
    }
}

#[test]
fn ours_read_as_kafka_reads_them() {
    let all = goldens("highwater-");
    assert!(all.len() >= 10, "{} golden batches", all.len());
    for (name, bytes, expected) in all {
        check(&name, bytes, &expected);
    }
}

fn check(name: &str, bytes: Bytes, expected: &Value) {
    let batch = RecordBatch::validate_stored(bytes.clone()).expect(name);
    check_header(name, batch.header(), expected);
    let produced = RecordBatch::validate(bytes.clone(), bytes.len());
    assert_eq!(produced.is_ok(), !name.contains("compacted"), "{name}");
    let found = records(&batch).expect(name);
    assert_eq!(
        found.len() as u64,
        expected["count"].as_u64().expect("a count"),
        "{name}"
    );
    let sum = found.iter().fold(0, |sum, record| {
        let sum = crc32c::crc32c_append(sum, record.key.as_deref().unwrap_or_default());
        crc32c::crc32c_append(sum, record.value.as_deref().unwrap_or_default())
    });
    assert_eq!(
        u64::from(sum),
        expected["keys_and_values_crc32c"].as_u64().expect("sum"),
        "{name}"
    );
    if let Some(listed) = expected["records"].as_array() {
        let listed: Vec<Record> = listed.iter().map(record).collect();
        assert_eq!(found, listed, "{name}");
    }
}

fn check_header(name: &str, header: &BatchHeader, expected: &Value) {
    let signed = |field: &str| expected[field].as_i64().expect(field);
    let flag = |field: &str| expected[field].as_bool().expect(field);
    let found = [
        header.base_offset.0.cast_signed(),
        header.last_offset().0.cast_signed(),
        header.leader_epoch.map_or(-1, |epoch| i64::from(epoch.0)),
        i64::from(header.crc),
        header.base_timestamp.0,
        header.max_timestamp.0,
        header.producer_id.map_or(-1, |id| id.0.cast_signed()),
        header
            .producer_id
            .map_or(-1, |_| i64::from(header.producer_epoch.0)),
        header
            .base_sequence
            .map_or(-1, |sequence| i64::from(sequence.0)),
        header
            .last_sequence()
            .map_or(-1, |sequence| i64::from(sequence.0)),
        i64::from(header.record_count),
    ];
    let fields = [
        "base_offset",
        "last_offset",
        "leader_epoch",
        "crc",
        "base_timestamp",
        "max_timestamp",
        "producer_id",
        "producer_epoch",
        "base_sequence",
        "last_sequence",
        "count",
    ];
    for (found, field) in found.into_iter().zip(fields) {
        assert_eq!(found, signed(field), "{field} of {name}");
    }
    let attributes = header.attributes;
    assert_eq!(
        attributes.compression().name(),
        expected["compression"],
        "{name}"
    );
    assert_eq!(
        attributes.is_log_append_time(),
        flag("log_append_time"),
        "{name}"
    );
    assert_eq!(
        attributes.is_transactional(),
        flag("transactional"),
        "{name}"
    );
    assert_eq!(attributes.is_control(), flag("control"), "{name}");
    assert_eq!(
        attributes.has_delete_horizon(),
        flag("delete_horizon"),
        "{name}"
    );
}

fn record(json: &Value) -> Record {
    let headers = json["headers"].as_array().expect("headers");
    Record {
        offset: Offset(json["offset"].as_u64().expect("an offset")),
        timestamp: TimestampMs(json["timestamp"].as_i64().expect("a timestamp")),
        key: unhex(&json["key"]),
        value: unhex(&json["value"]),
        headers: headers
            .iter()
            .map(|h| (unhex(&h[0]).expect("a key"), unhex(&h[1])))
            .collect(),
    }
}

/// Builds the same records anew.
fn rebuilt(header: &BatchHeader, found: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if let (Some(id), Some(base)) = (header.producer_id, header.base_sequence) {
        builder.set_producer(id, header.producer_epoch, base);
    }
    for record in found {
        builder.append_record(record).expect("room");
    }
    builder.build()
}

#[test]
fn uncompressed_batches_are_built_byte_for_byte_as_kafka_builds_them() {
    let names = [
        "mixed-none",
        "idempotent",
        "sequence-wraps",
        "one-null",
        "no-timestamp",
    ];
    for name in names {
        let bytes = golden(&format!("kafka-{name}.bin"));
        let batch = RecordBatch::validate(bytes.clone(), usize::MAX).expect(name);
        assert_eq!(
            rebuilt(batch.header(), &records(&batch).expect(name)),
            bytes,
            "{name}"
        );
    }
}

#[test]
fn a_stamped_batch_is_what_kafka_stores() {
    let plain = RecordBatch::validate(golden("kafka-mixed-none.bin"), usize::MAX).expect("valid");
    let stamped = plain.stamp(Offset(123_456_789_012), LeaderEpoch(7));
    assert_eq!(stamped.to_bytes(), golden("kafka-stamped.bin"));
    assert_eq!(stamped.len(), plain.bytes().len());
    // Shared, not copied.
    assert_eq!(stamped.body.as_ptr(), plain.bytes()[16..].as_ptr());
}

#[test]
fn append_time_is_written_as_kafka_writes_it() {
    for kind in ["none", "lz4"] {
        let plain = golden(&format!("kafka-mixed-{kind}.bin"));
        let plain = RecordBatch::validate(plain, usize::MAX).expect("valid");
        let timed = plain.with_log_append_time(TimestampMs(1_700_000_000_000 + 86_400_000));
        assert_eq!(
            timed.bytes(),
            &golden(&format!("kafka-append-time-{kind}.bin")),
            "{kind}"
        );
        assert_eq!(
            RecordBatch::validate(timed.bytes().clone(), usize::MAX),
            Ok(timed)
        );
    }
}

#[test]
fn a_producer_is_written_into_a_built_batch_as_kafka_would() {
    let plain = RecordBatch::validate(golden("kafka-mixed-none.bin"), usize::MAX).expect("valid");
    let numbered = plain.with_producer(ProducerId(4711), ProducerEpoch(3), BatchSequence(17));
    assert_eq!(numbered.bytes(), &golden("kafka-idempotent.bin"));
}

#[test]
fn control_batches_say_what_they_mean() {
    for (name, kind) in [
        ("commit", ControlKind::Commit),
        ("abort", ControlKind::Abort),
    ] {
        let bytes = golden(&format!("kafka-control-{name}.bin"));
        let batch = RecordBatch::validate_stored(bytes).expect(name);
        let marker = records(&batch).expect(name).remove(0);
        let key = marker.key.expect("a key");
        assert_eq!(ControlKind::from_key(&key), Some(kind));
        assert_eq!(ControlKind::from_key(&key[..3]), None);
    }
}

#[test]
fn a_region_of_batches_splits_into_them() {
    let all = goldens("kafka-");
    let region: Vec<u8> = all
        .iter()
        .flat_map(|(_, bytes, _)| bytes.to_vec())
        .collect();
    let split: Vec<_> = split_batches(region.into())
        .map(|batch| batch.expect("valid"))
        .collect();
    assert_eq!(split.len(), all.len());
    for (batch, (name, bytes, _)) in split.iter().zip(&all) {
        assert_eq!(batch.bytes(), bytes, "{name}");
    }
}

#[test]
fn snappy_without_framing_is_read_too() {
    let framed = RecordBatch::validate(golden("kafka-mixed-snappy.bin"), usize::MAX).expect("ok");
    let plain = RecordBatch::validate(golden("kafka-mixed-none.bin"), usize::MAX).expect("ok");
    let raw = snap::raw::Encoder::new()
        .compress_vec(&plain.bytes()[61..])
        .expect("compresses");
    let mut bytes = framed.bytes()[..61].to_vec();
    bytes.extend_from_slice(&raw);
    let length = u32::try_from(bytes.len() - 12).expect("short");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let unframed = RecordBatch::validate(bytes.into(), usize::MAX).expect("valid");
    assert_eq!(records(&unframed), records(&plain));
    assert_eq!(records(&framed), records(&plain));
}

#[test]
fn keys_go_to_the_partition_that_kafka_picks() {
    let all: Value = serde_json::from_slice(&golden("murmur2.json")).expect("JSON");
    let all = all.as_array().expect("a list");
    assert!(all.len() > 70);
    for entry in all {
        let key = unhex(&entry["key"]).expect("a key");
        assert_eq!(
            i64::from(murmur2(&key).cast_signed()),
            entry["hash"].as_i64().expect("hash")
        );
        for (partitions, expected) in entry["partitions"].as_object().expect("partitions") {
            let found = partition_for_key(&key, partitions.parse().expect("a count"));
            assert_eq!(
                u64::from(found.0),
                expected.as_u64().expect("a partition"),
                "{entry}"
            );
        }
    }
}
