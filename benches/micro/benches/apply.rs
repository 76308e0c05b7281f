//! The shard's state machine: one entry of batches of idempotent producers, decoded and applied; and the
//! partitioner.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_micro::{batch, tp};
use highwater_proto::{Payload, TimestampMs, partition_for_key};
use highwater_shard::{
    AppendRequest, EntryContext, PartitionConfig, ShardCommand, ShardReply, ShardState, Verdict,
};

/// One producer per partition, numbered on from entry to entry.
struct Shard {
    state: ShardState,
    position: u64,
    sequence: u32,
    partitions: u32,
}

impl Shard {
    fn new(partitions: u32) -> Self {
        let mut shard = Self {
            state: ShardState::new(),
            position: 0,
            sequence: 0,
            partitions,
        };
        for partition in 0..partitions {
            let config = PartitionConfig::default();
            let tp = tp(partition);
            shard.apply(&ShardCommand::CreatePartition { tp, config }.encode());
        }
        shard
    }

    /// An entry as it lies in the log, with a batch for every partition.
    fn entry(&mut self) -> Payload {
        let sequence = self.sequence;
        self.sequence += 1;
        let batches = (0..self.partitions).map(|partition| AppendRequest {
            tp: tp(partition),
            append_time: TimestampMs(1_700_000_000_000),
            batch: batch(
                u64::from(partition) + 1,
                sequence,
                1_700_000_000_000,
                1 << 10,
            ),
        });
        let batches = batches.collect();
        ShardCommand::Append { batches }.encode()
    }

    fn apply(&mut self, entry: &Payload) -> ShardReply {
        let command = ShardCommand::decode(entry).expect("a command");
        self.position += 1;
        let at = EntryContext {
            position: self.position,
            leadership: 1,
        };
        let mut effects = Vec::new();
        self.state.apply(at, command, black_box(&mut effects))
    }
}

fn apply(c: &mut Criterion) {
    let mut bench = c.benchmark_group("shard");
    for partitions in [1, 10, 100] {
        let mut shard = Shard::new(partitions);
        let first = shard.entry();
        let ShardReply::Append(verdicts) = shard.apply(&first) else {
            panic!("not an append");
        };
        let appended = |verdict: &Verdict| matches!(verdict, Verdict::Appended { .. });
        assert!(verdicts.iter().all(appended), "{verdicts:?}");
        // Entries are made first and applied in the order they were made, each once.
        let shard = std::cell::RefCell::new(shard);
        bench.throughput(Throughput::Elements(partitions.into()));
        let name = "decode and apply an entry with so many batches of 1 KiB";
        bench.bench_function(BenchmarkId::new(name, partitions), |b| {
            b.iter_batched(
                || shard.borrow_mut().entry(),
                |entry| shard.borrow_mut().apply(&entry),
                BatchSize::SmallInput,
            );
        });
    }
    bench.finish();
    c.bench_function("partition for a key of 16 bytes", |b| {
        b.iter(|| partition_for_key(black_box(b"order-0000012345"), black_box(24)));
    });
}

criterion_group!(benches, apply);
criterion_main!(benches);
