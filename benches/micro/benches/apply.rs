//! The state machine of a shard (apply of an entry), the entry's codec, and the partitioner.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::{
    BatchSequence, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId, TopicPartition,
    partition_for_key,
};
use highwater_shard::{AppendRequest, EntryContext, PartitionConfig, ShardCommand, ShardState};

const PARTITIONS: u32 = 64;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(1), PartitionId(partition))
}

fn batch(sequence: Option<u32>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(sequence) = sequence {
        builder.set_producer(ProducerId(1), ProducerEpoch(0), BatchSequence(sequence));
    }
    let value = [0x5a; 1024];
    builder
        .append(TimestampMs(1), None, Some(&value), [])
        .expect("room");
    builder.build()
}

/// A shard with partitions, fed entry by entry.
struct Shard {
    state: ShardState,
    position: u64,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            state: ShardState::new(),
            position: 0,
        };
        for partition in 0..PARTITIONS {
            let config = PartitionConfig::default();
            shard.apply(ShardCommand::CreatePartition {
                tp: tp(partition),
                config,
            });
        }
        shard
    }
    fn apply(&mut self, command: ShardCommand) -> usize {
        self.position += 1;
        let at = EntryContext {
            position: self.position,
            leadership: 1,
        };
        let mut effects = Vec::new();
        black_box(self.state.apply(at, command, &mut effects));
        effects.len()
    }
}

fn entry(batches: u32, sequence: Option<u32>) -> ShardCommand {
    let request = |partition: u32| AppendRequest {
        tp: tp(partition % PARTITIONS),
        append_time: TimestampMs(1),
        batch: batch(sequence),
    };
    ShardCommand::Append {
        batches: (0..batches).map(request).collect(),
    }
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for batches in [1, 16, 64] {
        group.throughput(Throughput::Elements(u64::from(batches)));
        let mut shard = Shard::new();
        group.bench_function(format!("{batches} batches without a producer"), |b| {
            b.iter_batched(
                || entry(batches, None),
                |command| assert_eq!(shard.apply(command), batches as usize),
                BatchSize::SmallInput,
            );
        });
        let (mut shard, mut sequence) = (Shard::new(), 0);
        group.bench_function(format!("{batches} batches with sequences"), |b| {
            b.iter_batched(
                || {
                    sequence += 1;
                    entry(batches, Some(sequence - 1))
                },
                |command| assert_eq!(shard.apply(command), batches as usize),
                // One at a time: each sequence must be applied before the next is made.
                BatchSize::PerIteration,
            );
        });
        let command = entry(batches, None);
        group.bench_function(format!("encode {batches} batches"), |b| {
            b.iter(|| black_box(&command).encode());
        });
        let payload = command.encode();
        group.bench_function(format!("decode {batches} batches"), |b| {
            b.iter(|| ShardCommand::decode(black_box(&payload)).expect("decoded"));
        });
    }
    group.finish();
}

fn partitioner(c: &mut Criterion) {
    let mut group = c.benchmark_group("partitioner");
    for length in [8, 16, 64, 256] {
        let key = vec![b'k'; length];
        group.bench_function(format!("key of {length} bytes"), |b| {
            b.iter(|| partition_for_key(black_box(&key), black_box(10_000)));
        });
    }
    group.finish();
}

criterion_group!(benches, apply, partitioner);
criterion_main!(benches);
