//! Segment files: reading behind the tail, and finding a place by offset and by time. The files lie in the
//! page cache.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use highwater_env::OsDisk;
use highwater_micro::{batch, tp};
use highwater_proto::batch::RecordBatch;
use highwater_proto::{LeaderEpoch, Offset, ShardId, TimestampMs};
use highwater_segment::{
    AppendBatch, FileCache, FileCacheConfig, LogIdentity, PartitionLog, PartitionReader,
    SegmentConfig,
};

/// One record each.
const BATCHES: u64 = 65_536;
const VALUE_BYTES: usize = 1 << 10;
const BATCHES_PER_SEGMENT: u64 = 16_384;

fn stored(offset: u64) -> AppendBatch {
    let time = TimestampMs(1_700_000_000_000 + offset.cast_signed());
    let bytes = batch(1, 0, time.0, VALUE_BYTES);
    let batch = RecordBatch::validate(bytes, 1 << 20).expect("valid");
    let stamped = batch.stamp(Offset(offset), LeaderEpoch(1));
    AppendBatch {
        head: stamped.head,
        body: stamped.body,
        base_offset: Offset(offset),
        last_offset: Offset(offset),
        max_timestamp: time,
        append_time: time,
        new_segment: offset.is_multiple_of(BATCHES_PER_SEGMENT),
    }
}

fn filled(dir: &Path) -> PartitionReader<OsDisk> {
    let fatal = Arc::new(|fault: &highwater_segment::SegmentFault| panic!("{fault}"));
    let files = FileCache::new(OsDisk, FileCacheConfig::default(), fatal);
    let owner = LogIdentity {
        shard: ShardId(1),
        partition: tp(0),
        arrival: 0,
    };
    let mut log = PartitionLog::create(&files, owner, &dir.join("1-0"), SegmentConfig::default());
    for first in (0..BATCHES).step_by(1024) {
        let batches: Vec<_> = (first..first + 1024).map(stored).collect();
        log.append_all(&batches).expect("appended");
    }
    log.reader()
}

/// Places all over the log, the same in every run.
fn places() -> impl FnMut() -> u64 {
    let mut last = 0_u64;
    move || {
        last = (last + 40_503) % BATCHES;
        last
    }
}

fn segment(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let reader = filled(dir.path());
    let end = Offset(BATCHES);
    let mut bench = c.benchmark_group("segment");
    let mut place = places();
    bench.bench_function("find by offset and read one batch of 1 KiB", |b| {
        b.iter_batched(
            &mut place,
            |at| reader.read(black_box(Offset(at)), 1, end).expect("read"),
            BatchSize::SmallInput,
        );
    });
    let mut place = places();
    bench.bench_function("find by time", |b| {
        b.iter_batched(
            || TimestampMs(1_700_000_000_000 + place().cast_signed()),
            |time| {
                reader
                    .find_by_timestamp(black_box(time), end)
                    .expect("found")
            },
            BatchSize::SmallInput,
        );
    });
    let mut place = places();
    bench.throughput(Throughput::Bytes(1 << 20));
    bench.bench_function("read 1 MiB", |b| {
        b.iter_batched(
            || place() % (BATCHES - 2048),
            |at| {
                reader
                    .read(black_box(Offset(at)), 1 << 20, end)
                    .expect("read")
            },
            BatchSize::LargeInput,
        );
    });
    bench.finish();
}

criterion_group!(benches, segment);
criterion_main!(benches);
