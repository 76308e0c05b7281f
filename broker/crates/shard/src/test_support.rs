//! Batches and a driver for the tests of this crate.

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::{
    BatchSequence, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId,
    TopicPartition,
};

use crate::{
    AppendEffect, AppendRequest, Effect, EntryContext, PartitionConfig, ShardCommand, ShardReply,
    ShardState, Verdict,
};

/// A producer's id, epoch and first sequence.
pub(crate) type Numbers = (u64, u16, u32);

pub(crate) fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(7), PartitionId(partition))
}

pub(crate) fn builder(numbers: Option<Numbers>, records: u32) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, epoch, sequence)) = numbers {
        builder.set_producer(
            ProducerId(id),
            ProducerEpoch(epoch),
            BatchSequence(sequence),
        );
    }
    for n in 0..records {
        let value = n.to_be_bytes();
        let none: [(&[u8], Option<&[u8]>); 0] = [];
        builder
            .append(TimestampMs(i64::from(n)), None, Some(&value), none)
            .expect("fits");
    }
    builder
}

pub(crate) fn batch(numbers: Option<Numbers>, records: u32) -> Bytes {
    builder(numbers, records).build()
}

/// Settings of a partition that is compacted.
pub(crate) fn compacted() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 200,
        version: 3,
        compact: true,
        delete_retention_ms: 1_000,
        min_dirty_ppm: 500_000,
        max_compaction_lag_ms: Some(60_000),
        ..PartitionConfig::default()
    }
}

/// Has partition 0 with such settings compacted.
pub(crate) fn compact(upto: u64, time: i64) -> ShardCommand {
    ShardCommand::CompactLog {
        tp: tp(0),
        upto: Offset(upto),
        time: TimestampMs(time),
        config_version: 3,
    }
}

/// Applies one command after the other.
pub(crate) struct Driver {
    pub state: ShardState,
    pub position: u64,
    pub leadership: u64,
    pub time: i64,
}

impl Driver {
    /// With partition 0 and no limits.
    pub fn new() -> Self {
        Self::with(PartitionConfig::default())
    }
    /// With partition 0.
    pub fn with(config: PartitionConfig) -> Self {
        let mut driver = Self {
            state: ShardState::new(),
            position: 0,
            leadership: 1,
            time: 1000,
        };
        let create = ShardCommand::CreatePartition { tp: tp(0), config };
        assert_eq!(driver.apply(create).0, ShardReply::Done);
        driver
    }
    pub fn apply(&mut self, command: ShardCommand) -> (ShardReply, Vec<Effect>) {
        self.position += 1;
        let at = EntryContext {
            position: self.position,
            leadership: self.leadership,
        };
        let mut effects = Vec::new();
        let reply = self.state.apply(at, command, &mut effects);
        (reply, effects)
    }
    pub fn append(&mut self, batch: Bytes) -> (Verdict, Option<AppendEffect>) {
        self.append_to(tp(0), batch)
    }
    pub fn append_to(
        &mut self,
        tp: TopicPartition,
        batch: Bytes,
    ) -> (Verdict, Option<AppendEffect>) {
        let append_time = TimestampMs(self.time);
        let batches = vec![AppendRequest {
            tp,
            append_time,
            batch,
        }];
        let (reply, mut effects) = self.apply(ShardCommand::Append { batches });
        let ShardReply::Append(verdicts) = reply else {
            panic!("{reply:?}")
        };
        let [verdict] = verdicts[..] else {
            panic!("{verdicts:?}")
        };
        let effect = effects.pop().map(|effect| match effect {
            Effect::Append(append) => append,
            other => panic!("{other:?}"),
        });
        assert_eq!(
            effect.is_some(),
            matches!(verdict, Verdict::Appended { .. })
        );
        (verdict, effect)
    }
    /// Sends a batch of a producer.
    pub fn send(&mut self, numbers: Numbers, records: u32) -> Verdict {
        self.append(batch(Some(numbers), records)).0
    }
    /// Replaces the state by its snapshot's.
    pub fn restart(&mut self) {
        let bytes = self.state.encode_snapshot();
        let restored = ShardState::decode_snapshot(&bytes).expect("own snapshot");
        assert_eq!(restored, self.state);
        self.state = restored;
    }
}
