//! The log (an append alone, a group commit) and segment files (append, read, look up by time).

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater_env::{OsDisk, OsEnv};
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch, StampedBatch};
use highwater_proto::{
    LeaderEpoch, Offset, PartitionId, Payload, ShardId, TimestampMs, TopicId, TopicPartition,
};
use highwater_segment::{
    AppendBatch, FileCache, FileCacheConfig, LogIdentity, PartitionLog, SegmentConfig,
};
use highwater_wal::{GroupId, LogIndex, Op, Wal, WalConfig};

/// Records of a batch of the segment benches, 1 KiB each.
const RECORDS: u32 = 16;
/// Batches in the log that is read.
const BATCHES: u64 = 4_000;

fn append(index: u64, payload: &Bytes) -> Op {
    Op::Append {
        index: LogIndex(index),
        payload: Payload::from(payload.clone()),
    }
}

/// Files are kept few by purging, so that recycled ones are written.
async fn write(wal: &Wal<OsEnv>, group: GroupId, index: u64, payload: &Bytes) {
    let mut ops = vec![append(index, payload)];
    if index % 256 == 255 {
        ops.push(Op::Purge {
            upto: LogIndex(index),
            meta: Bytes::new(),
        });
    }
    wal.write(group, ops).await.expect("written");
}

fn log(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    // It looks for a runtime when it starts its writer.
    let guard = runtime.enter();
    let (wal, _) = Wal::open(&OsEnv::default(), dir.path(), WalConfig::default()).expect("a log");
    let mut group = c.benchmark_group("log");
    group.sample_size(20);
    let mut next = 0u64;
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let payload = Bytes::from(vec![0x5a; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("append and sync {} KiB", size >> 10), |b| {
            b.iter(|| {
                runtime.block_on(write(&wal, GroupId(1), next, &payload));
                next += 1;
            });
        });
    }
    let payload = Bytes::from(vec![0xa5; 4 << 10]);
    let mut round = 0u64;
    group.throughput(Throughput::Bytes(64 * (4 << 10)));
    group.bench_function("group commit of 64 groups, 4 KiB each", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let all = (0..64).map(|number| {
                    let (wal, payload) = (&wal, &payload);
                    async move { write(wal, GroupId(100 + number), round, payload).await }
                });
                futures_util::future::join_all(all).await;
            });
            round += 1;
        });
    });
    group.finish();
    runtime.block_on(wal.close());
    drop(guard);
}

fn batch(number: u64) -> AppendBatch {
    let value = vec![number as u8; 1024];
    let time = TimestampMs(1_700_000_000_000 + i64::try_from(number).expect("small") * 10);
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..RECORDS {
        builder.append(time, None, Some(&value), []).expect("room");
    }
    let base = Offset(number * u64::from(RECORDS));
    let batch = RecordBatch::validate(builder.build(), 1 << 20).expect("valid");
    let StampedBatch { head, body } = batch.stamp(base, LeaderEpoch(1));
    AppendBatch {
        head,
        body,
        base_offset: base,
        last_offset: base.plus(u64::from(RECORDS) - 1),
        max_timestamp: time,
        append_time: time,
        new_segment: number > 0 && number.is_multiple_of(1_000),
    }
}

fn segments(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let files = FileCache::new(
        OsDisk,
        FileCacheConfig::default(),
        Arc::new(|fault| panic!("{fault}")),
    );
    let create = |partition: u32| {
        let owner = LogIdentity {
            shard: ShardId(1),
            partition: TopicPartition::new(TopicId(1), PartitionId(partition)),
        };
        let path = dir.path().join(partition.to_string());
        PartitionLog::create(&files, owner, &path, SegmentConfig::default())
    };
    let (mut filled, mut growing) = (create(0), create(1));
    for number in 0..BATCHES {
        filled.append(&batch(number)).expect("appended");
    }
    let end = filled.next_offset();
    let reader = filled.reader();
    let mut group = c.benchmark_group("segment");
    let bytes = batch(0).len() as u64;
    group.throughput(Throughput::Bytes(bytes));
    let mut number = 0;
    group.bench_function(format!("append {bytes} bytes, without sync"), |b| {
        b.iter_batched(
            || {
                number += 1;
                batch(number - 1)
            },
            |batch| growing.append(&batch).expect("appended"),
            criterion::BatchSize::SmallInput,
        );
    });
    let mut at = 0u64;
    // A large odd step visits all places in an order that no read-ahead follows.
    let mut somewhere = move || {
        at = (at + 7_919 * u64::from(RECORDS)) % end.0;
        Offset(at)
    };
    group.bench_function("read one batch somewhere", |b| {
        b.iter(|| reader.read(black_box(somewhere()), 1, end).expect("read"));
    });
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("read 1 MiB from the beginning", |b| {
        b.iter(|| reader.read(Offset(0), 1 << 20, end).expect("read"));
    });
    group.finish();
    let mut group = c.benchmark_group("index");
    let mut time = 0i64;
    group.bench_function("offset of a timestamp", |b| {
        b.iter(|| {
            time = (time + 7_919) % (BATCHES as i64 * 10);
            let wanted = TimestampMs(1_700_000_000_000 + time);
            reader.find_by_timestamp(wanted, end).expect("found")
        });
    });
    group.finish();
}

criterion_group!(benches, log, segments);
criterion_main!(benches);
