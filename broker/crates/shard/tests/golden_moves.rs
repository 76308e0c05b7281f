//! The bytes of what came with moves, as they lie on disks: encoders still write them, decoders still
//! read them. A file that has to change is a new format version, and the old file stays.

mod common;

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::{
    BatchSequence, Offset, PartitionId, Payload, ProducerEpoch, ProducerId, TimestampMs, TopicId,
    TopicPartition,
};
use highwater_shard::{
    AppendRequest, CommandRefusal, EntryContext, FeatureLevel, ImportedBatch, MoveCommand,
    MoveStep, PartitionConfig, Phase, RejectReason, ShardCommand, ShardReply, ShardState, Verdict,
};

use common::golden;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(300), PartitionId(partition))
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 1 << 30,
        producer_expiry_ms: 86_400_000,
        version: 4,
        retention_ms: Some(604_800_000),
        ..PartitionConfig::default()
    }
}

fn moved(plan: u64, partition: u32, step: MoveStep) -> ShardCommand {
    let tp = tp(partition);
    ShardCommand::Move(Box::new(MoveCommand { tp, plan, step }))
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(ProducerId(70_000), ProducerEpoch(3), BatchSequence(0));
    let none: [(&[u8], Option<&[u8]>); 0] = [];
    let value = Some(&b"a record"[..]);
    let appended = builder.append(TimestampMs(1_700_000_000_000), None, value, none);
    appended.expect("fits");
    builder.build()
}

fn imported() -> ImportedBatch {
    ImportedBatch {
        append_time: TimestampMs(1_700_000_000_123),
        begins_segment: true,
        batch: batch(),
    }
}

fn apply(state: &mut ShardState, commands: Vec<ShardCommand>) {
    for command in commands {
        let at = EntryContext {
            position: state.position().unwrap_or(40) + 1,
            leadership: 3,
        };
        let reply = state.apply(at, command.clone(), &mut Vec::new());
        let done = matches!(reply, ShardReply::Done | ShardReply::Append(_));
        assert!(done, "{command:?}: {reply:?}");
    }
}

/// A partition that leaves (0), one that stays (1), a copy that is not whole (2).
fn state() -> ShardState {
    let mut state = ShardState::new();
    let create = |partition| ShardCommand::CreatePartition {
        tp: tp(partition),
        config: config(),
    };
    let append = AppendRequest {
        tp: tp(0),
        append_time: TimestampMs(1_700_000_000_123),
        batch: batch(),
    };
    let commands = vec![
        ShardCommand::RaiseFeatureLevel {
            level: FeatureLevel::MOVES,
        },
        create(0),
        create(1),
        ShardCommand::Append {
            batches: vec![append],
        },
        moved(12, 0, MoveStep::Fence),
        moved(13, 2, MoveStep::Begin { config: config() }),
        moved(
            13,
            2,
            MoveStep::Import {
                batches: vec![imported()],
            },
        ),
    ];
    apply(&mut state, commands);
    state
}

#[test]
fn commands_of_version_5() {
    let commands = [
        ("v5.begin.command", MoveStep::Begin { config: config() }),
        (
            "v5.import.command",
            MoveStep::Import {
                batches: vec![imported(), imported()],
            },
        ),
        (
            "v5.adopt.command",
            MoveStep::Adopt {
                state: Bytes::from_static(b"a state"),
            },
        ),
        ("v5.fence.command", MoveStep::Fence),
        ("v5.release.command", MoveStep::Release),
        ("v5.forget.command", MoveStep::Forget),
    ];
    for (name, step) in commands {
        let command = moved(12, 7, step);
        let stored = golden(name, &command.encode().to_contiguous());
        let decoded = ShardCommand::decode(&Payload::from(Bytes::from(stored)));
        assert_eq!(decoded, Ok(command), "{name}");
    }
}

#[test]
fn a_snapshot_of_version_5() {
    let state = state();
    let stored = golden("v5.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored).as_ref(), Ok(&state));
    let phases = state.partitions().map(|(_, facts)| facts.phase);
    let fenced = Phase::Fenced { plan: 12 };
    assert_eq!(
        phases.collect::<Vec<_>>(),
        [fenced, Phase::Serving, Phase::Importing]
    );
}

#[test]
fn an_exported_partition_of_version_5_is_adopted() {
    let exported = state().export_partition(tp(0)).expect("there");
    let stored = golden("v5.export", &exported);
    let mut other = ShardState::new();
    let batches = vec![imported()];
    let commands = vec![
        ShardCommand::RaiseFeatureLevel {
            level: FeatureLevel::MOVES,
        },
        moved(12, 0, MoveStep::Begin { config: config() }),
        moved(12, 0, MoveStep::Import { batches }),
        moved(
            12,
            0,
            MoveStep::Adopt {
                state: stored.into(),
            },
        ),
    ];
    apply(&mut other, commands);
    let facts = other.partition(tp(0)).expect("adopted");
    assert_eq!((facts.next_offset, facts.producers), (Offset(1), 1));
}

/// A partition that is compacted, and held by a plan that copies it.
fn held() -> ShardState {
    let mut state = ShardState::new();
    let config = PartitionConfig {
        compact: true,
        segment_bytes: 64,
        delete_retention_ms: 1_000,
        ..config()
    };
    let append = || AppendRequest {
        tp: tp(1),
        append_time: TimestampMs(1_700_000_000_123),
        batch: plain(),
    };
    let level = FeatureLevel::HOLDS;
    let compacted = vec![
        ShardCommand::RaiseFeatureLevel { level },
        ShardCommand::CreatePartition { tp: tp(1), config },
        ShardCommand::Append {
            batches: vec![append(), append()],
        },
        ShardCommand::CompactLog {
            tp: tp(1),
            upto: Offset(1),
            time: TimestampMs(1_700_000_000_456),
            config_version: 4,
        },
        moved(12, 1, MoveStep::Hold),
    ];
    apply(&mut state, compacted);
    state
}

fn plain() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let none: [(&[u8], Option<&[u8]>); 0] = [];
    let (key, value) = (Some(&b"a key"[..]), Some(&b"a record"[..]));
    let appended = builder.append(TimestampMs(1_700_000_000_000), key, value, none);
    appended.expect("fits");
    builder.build()
}

#[test]
fn what_came_with_version_6() {
    let command = moved(12, 7, MoveStep::Hold);
    let stored = golden("v6.hold.command", &command.encode().to_contiguous());
    let decoded = ShardCommand::decode(&Payload::from(Bytes::from(stored)));
    assert_eq!(decoded, Ok(command));

    let mut state = held();
    let stored = golden("v6.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored).as_ref(), Ok(&state));
    let facts = state.partition(tp(1)).expect("there");
    assert_eq!(facts.phase, Phase::Held { plan: 12 });

    // And what a compacted partition is like for the shard that it goes to.
    apply(&mut state, vec![moved(12, 1, MoveStep::Fence)]);
    let exported = state.export_partition(tp(1)).expect("there");
    let stored = golden("v6.export", &exported);
    let mut other = ShardState::new();
    let level = FeatureLevel::HOLDS;
    let batches = [Offset(0), Offset(1)].map(|base| ImportedBatch {
        append_time: TimestampMs(1_700_000_000_123),
        begins_segment: true,
        batch: at(base),
    });
    let commands = vec![
        ShardCommand::RaiseFeatureLevel { level },
        moved(12, 1, MoveStep::Begin { config: config() }),
        moved(
            12,
            1,
            MoveStep::Import {
                batches: batches.into(),
            },
        ),
        moved(
            12,
            1,
            MoveStep::Adopt {
                state: stored.into(),
            },
        ),
    ];
    apply(&mut other, commands);
    let arrived = other.partition(tp(1)).expect("adopted").compaction;
    let arrived = arrived.expect("decided");
    let position = other.position().expect("some");
    assert_eq!((arrived.upto, arrived.generation), (Offset(1), position));
}

/// A stored batch.
fn at(base: Offset) -> Bytes {
    let mut bytes = plain().to_vec();
    bytes[..8].copy_from_slice(&base.0.to_be_bytes());
    bytes.into()
}

#[test]
fn replies_of_version_5() {
    let moving = Verdict::Rejected(RejectReason::Moving);
    let replies = [
        ("v5.append.reply", ShardReply::Append(vec![moving])),
        (
            "v5.moving.reply",
            ShardReply::Refused(CommandRefusal::Moving),
        ),
        (
            "v5.other_move.reply",
            ShardReply::Refused(CommandRefusal::OtherMove),
        ),
    ];
    for (name, reply) in replies {
        let stored = golden(name, &reply.encode());
        assert_eq!(ShardReply::decode(&stored), Ok(reply), "{name}");
    }
}
