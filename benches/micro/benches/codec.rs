//! Record batches: what a broker does with one (check, stamp, append time), and what clients do
//! (build, iterate).

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater_proto::batch::{BatchBuilder, Compression, DecodeLimits, RecordBatch};
use highwater_proto::{LeaderEpoch, Offset, TimestampMs, murmur2};

/// Records of about 115 bytes each, so that a batch of a thousand has about 115 KB.
const RECORDS: u64 = 1000;

fn value(number: u64) -> String {
    let account = number * 7919 % 1009;
    let total = number * 104_729 % 99_991;
    format!(
        "{{\"order\":{number:08},\"account\":\"A-{account:04}\",\"state\":\"accepted\",\"total_cents\":{total:05},\"pad\":\"0123456789\"}}"
    )
}

fn build(compression: Compression, values: &[String]) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(compression, 128 * 1024);
    for (number, value) in (0i64..).zip(values) {
        let key = number.to_be_bytes();
        let time = TimestampMs(1_700_000_000_000 + number);
        builder
            .append(time, Some(&key), Some(value.as_bytes()), [])
            .expect("room");
    }
    builder.build()
}

fn broker(c: &mut Criterion) {
    let values: Vec<String> = (0..RECORDS).map(value).collect();
    let bytes = build(Compression::None, &values);
    let mut group = c.benchmark_group("broker");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(format!("validate and stamp {} bytes", bytes.len()), |b| {
        b.iter(|| {
            let batch = RecordBatch::validate(black_box(bytes.clone()), 1 << 20).expect("valid");
            batch.stamp(Offset(41), LeaderEpoch(7))
        });
    });
    let batch = RecordBatch::validate(bytes.clone(), 1 << 20).expect("valid");
    group.bench_function("append time", |b| {
        b.iter(|| black_box(&batch).with_log_append_time(TimestampMs(1_700_000_000_000)));
    });
    group.finish();
}

fn clients(c: &mut Criterion) {
    let values: Vec<String> = (0..RECORDS).map(value).collect();
    let plain = build(Compression::None, &values);
    for compression in Compression::ALL {
        let bytes = build(compression, &values);
        let mut group = c.benchmark_group(format!("client/{compression}"));
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function("build", |b| {
            b.iter(|| build(compression, black_box(&values)))
        });
        let batch = RecordBatch::validate(bytes, 1 << 20).expect("valid");
        group.bench_function("iterate", |b| {
            b.iter(|| {
                let records = black_box(&batch)
                    .records(&DecodeLimits::default())
                    .expect("ok");
                records
                    .map(|record| record.expect("a record").offset.0)
                    .sum::<u64>()
            });
        });
        group.finish();
    }
    c.bench_function("murmur2 of 16 bytes", |b| {
        b.iter(|| murmur2(black_box(b"order-0000012345")))
    });
}

criterion_group!(benches, broker, clients);
criterion_main!(benches);
