//! The bytes of version 1, as they lie on disks: encoders still write them, decoders still read
//! them. A file that has to change is a new format version, and the old file stays.

mod common;

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{
    GroupAcknowledge, GroupAssign, GroupCommand, GroupCommit, GroupCopy, GroupDelete, GroupJoin,
    GroupMemberSpec, GroupOffset, GroupPark, GroupParkKey, GroupRemove, GroupReset, GroupSweep,
    GroupTarget, GroupTopic, GroupUnpark,
};
use highwater_proto::{
    BatchSequence, Offset, PartitionId, Payload, ProducerEpoch, ProducerId, TimestampMs, TopicId,
    TopicPartition,
};
use highwater_shard::groups::{GroupOutcome, GroupPhase, GroupRefusal, ItemOutcome};
use highwater_shard::{
    AppendRequest, CommandRefusal, EntryContext, FeatureLevel, PartitionConfig, RejectReason,
    ShardCommand, ShardReply, ShardState, Verdict,
};

use common::golden;

fn tp(topic: u64, partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(topic), PartitionId(partition))
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 1 << 30,
        segment_ms: 604_800_000,
        producer_expiry_ms: 86_400_000,
        max_producers: 1000,
        ..PartitionConfig::default()
    }
}

fn group_offset(partition: u32, offset: u64) -> GroupOffset {
    GroupOffset {
        topic: 300,
        partition,
        offset,
        leader_epoch: 4,
        metadata: "half way".to_owned(),
        ..GroupOffset::default()
    }
}

fn group(action: Action) -> ShardCommand {
    ShardCommand::Group(Box::new(GroupCommand {
        group: "billing".to_owned(),
        time_ms: 1_700_000_000_123,
        action: Some(action),
    }))
}

fn join(id: &str, instance_id: &str) -> ShardCommand {
    let spec = GroupMemberSpec {
        instance_id: instance_id.to_owned(),
        client_id: "billing-service".to_owned(),
        host: "10.0.0.7".to_owned(),
        rack: "a".to_owned(),
        topics: vec!["orders".to_owned(), "payments".to_owned()],
        pattern: "audit-.*".to_owned(),
        strategy: 1,
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
    };
    group(Action::Join(GroupJoin {
        member_id: id.to_owned(),
        spec: Some(spec),
    }))
}

fn assign(generation: u64, targets: &[(&str, &[u32])]) -> ShardCommand {
    let target = |(id, partitions): &(&str, &[u32])| GroupTarget {
        member_id: (*id).to_owned(),
        topics: vec![GroupTopic {
            topic: 300,
            partitions: partitions.to_vec(),
        }],
    };
    group(Action::Assign(GroupAssign {
        generation,
        targets: targets.iter().map(target).collect(),
    }))
}

fn park(id: &str, epoch: u64) -> ShardCommand {
    group(Action::Park(GroupPark {
        member_id: id.to_owned(),
        instance_id: String::new(),
        epoch,
        keys: vec![GroupParkKey {
            topic: 300,
            partition: 2,
            key: Bytes::from_static(b"customer 7"),
            offset: 16,
        }],
        offsets: vec![group_offset(2, 17)],
    }))
}

fn group_commands() -> Vec<(&'static str, ShardCommand)> {
    let remove = GroupRemove {
        member_ids: vec!["one".to_owned()],
        joined: 300,
        unacknowledged: 301,
        ..GroupRemove::default()
    };
    let commit = GroupCommit {
        member_id: "one".to_owned(),
        epoch: 300,
        offsets: vec![group_offset(2, 17)],
        allow_rewind: true,
        ..GroupCommit::default()
    };
    let acknowledge = GroupAcknowledge {
        member_id: "one".to_owned(),
        instance_id: "i-1".to_owned(),
        epoch: 300,
    };
    let unpark = GroupUnpark {
        keys: vec![GroupParkKey {
            topic: 300,
            partition: 2,
            key: Bytes::from_static(b"customer 7"),
            offset: 16,
        }],
    };
    let reset = GroupReset {
        offsets: vec![group_offset(2, 3)],
        force: true,
    };
    let copy = GroupCopy {
        offsets: vec![group_offset(2, 3)],
    };
    let sweep = GroupSweep {
        retention_ms: 604_800_000,
        deleted_topics: vec![301],
    };
    vec![
        ("v1.group_join.command", join("one", "i-1")),
        (
            "v1.group_acknowledge.command",
            group(Action::Acknowledge(acknowledge)),
        ),
        ("v1.group_remove.command", group(Action::Remove(remove))),
        (
            "v1.group_assign.command",
            assign(300, &[("one", &[0, 2]), ("two", &[1])]),
        ),
        ("v1.group_commit.command", group(Action::Commit(commit))),
        ("v1.group_park.command", park("one", 300)),
        ("v1.group_unpark.command", group(Action::Unpark(unpark))),
        ("v1.group_reset.command", group(Action::Reset(reset))),
        (
            "v1.group_delete.command",
            group(Action::Delete(GroupDelete {})),
        ),
        ("v1.group_copy.command", group(Action::Copy(copy))),
        ("v1.group_sweep.command", group(Action::Sweep(sweep))),
    ]
}

/// A group in the middle of a rebalance, with something in every field, and an empty one.
fn state_with_groups() -> ShardState {
    let mut state = state();
    let mut position = 1_000;
    let mut apply = |command: ShardCommand| {
        position += 1;
        let at = EntryContext {
            position,
            leadership: 9,
        };
        let reply = state.apply(at, command, &mut Vec::new());
        let done = matches!(reply, ShardReply::Done | ShardReply::Group(Ok(_)));
        assert!(done, "{reply:?}");
        position
    };
    apply(ShardCommand::RaiseFeatureLevel {
        level: FeatureLevel::GROUPS,
    });
    apply(join("old", "i-1"));
    let generation = apply(join("one", "i-1"));
    let epoch = apply(assign(generation, &[("one", &[0, 1, 2])]));
    apply(park("one", epoch));
    let generation = apply(join("two", ""));
    apply(assign(generation, &[("one", &[0, 2]), ("two", &[1])]));
    let copy = GroupCommand {
        group: "copy".to_owned(),
        time_ms: 1_700_000_009_000,
        action: Some(Action::Copy(GroupCopy {
            offsets: vec![group_offset(0, 3)],
        })),
    };
    apply(ShardCommand::Group(Box::new(copy)));
    state
}

fn batch(producer: Option<(u64, u32)>, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, sequence)) = producer {
        builder.set_producer(ProducerId(id), ProducerEpoch(2), BatchSequence(sequence));
    }
    let header: (&[u8], Option<&[u8]>) = (b"h", None);
    let time = TimestampMs(1_700_000_000_000);
    builder
        .append(time, Some(b"key"), Some(value), [header])
        .expect("fits");
    builder.build()
}

fn append(time: i64, batches: &[(TopicPartition, Bytes)]) -> ShardCommand {
    let request = |(tp, batch): &(TopicPartition, Bytes)| AppendRequest {
        tp: *tp,
        append_time: TimestampMs(time),
        batch: batch.clone(),
    };
    ShardCommand::Append {
        batches: batches.iter().map(request).collect(),
    }
}

fn commands() -> Vec<(&'static str, ShardCommand)> {
    let (tp, config) = (tp(300, 7), config());
    let two = [
        (tp, batch(None, b"one")),
        (self::tp(301, 0), batch(Some((5, 9)), b"two")),
    ];
    vec![
        ("v1.append.command", append(1_700_000_000_123, &two)),
        (
            "v1.create.command",
            ShardCommand::CreatePartition { tp, config },
        ),
        ("v1.delete.command", ShardCommand::DeletePartition { tp }),
        (
            "v1.configure.command",
            ShardCommand::ConfigurePartition { tp, config },
        ),
        (
            "v1.trim.command",
            ShardCommand::TrimLog {
                tp,
                log_start: Offset(70_000),
                config_version: None,
            },
        ),
        (
            "v1.level.command",
            ShardCommand::RaiseFeatureLevel {
                level: FeatureLevel(1),
            },
        ),
    ]
}

/// A state with something in every field.
fn state() -> ShardState {
    let mut state = ShardState::new();
    let mut position = 40;
    let mut apply = |command: ShardCommand| {
        position += 2;
        let at = EntryContext {
            position,
            leadership: position / 10,
        };
        state.apply(at, command, &mut Vec::new());
    };
    for n in 0..3 {
        apply(ShardCommand::CreatePartition {
            tp: tp(300, n),
            config: config(),
        });
    }
    apply(ShardCommand::DeletePartition { tp: tp(300, 1) });
    for n in 0..7u32 {
        let batches = [
            (tp(300, 0), batch(Some((77, n)), b"value")),
            (tp(300, 0), batch(Some((78 + u64::from(n), 0)), b"value")),
            (tp(300, 2), batch(None, b"value")),
        ];
        apply(append(1_700_000_000_000 + i64::from(n) * 1000, &batches));
    }
    apply(ShardCommand::TrimLog {
        tp: tp(300, 0),
        log_start: Offset(3),
        config_version: None,
    });
    state
}

#[test]
fn commands_of_version_1() {
    for (name, command) in commands() {
        let stored = golden(name, &command.encode().to_contiguous());
        let decoded = ShardCommand::decode(&Payload::from(Bytes::from(stored)));
        assert_eq!(decoded, Ok(command), "{name}");
    }
}

#[test]
fn commands_to_groups_of_version_1() {
    for (name, command) in group_commands() {
        let stored = golden(name, &command.encode().to_contiguous());
        let decoded = ShardCommand::decode(&Payload::from(Bytes::from(stored)));
        assert_eq!(decoded, Ok(command), "{name}");
    }
}

#[test]
fn a_snapshot_with_groups_of_version_1() {
    let state = state_with_groups();
    let group = state.group("billing").expect("there");
    assert_eq!(group.phase(), GroupPhase::Reconciling);
    let stored = golden("v1.groups.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored), Ok(state));
}

#[test]
fn a_snapshot_of_version_1() {
    let state = state();
    let stored = golden("v1.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored), Ok(state));
}

#[test]
fn an_exported_partition_of_version_1() {
    let exported = state().export_partition(tp(300, 0)).expect("there");
    let stored = golden("v1.export", &exported);
    let level = highwater_shard::exported_level(&stored);
    assert_eq!(level, Ok(state().rules()));
}

fn group_outcome() -> GroupOutcome {
    let refused = ItemOutcome {
        refusal: Some(GroupRefusal::CommitBehind),
        value: Some(70_000),
    };
    GroupOutcome {
        items: vec![ItemOutcome::default(), refused],
        count: 3,
    }
}

#[test]
fn replies_of_version_1() {
    let appended = |append_time| Verdict::Appended {
        base_offset: Offset(70_000),
        log_start: Offset(3),
        append_time,
    };
    let verdicts = vec![
        appended(None),
        appended(Some(TimestampMs(1_700_000_000_123))),
        Verdict::Duplicate {
            base_offset: Offset(69_000),
        },
        Verdict::Rejected(RejectReason::UnknownPartition),
        Verdict::Rejected(RejectReason::CorruptBatch),
        Verdict::Rejected(RejectReason::OutOfOrderSequence),
        Verdict::Rejected(RejectReason::DuplicateSequence),
        Verdict::Rejected(RejectReason::ProducerFenced),
        Verdict::Rejected(RejectReason::UnknownProducer),
    ];
    let out_of_range = CommandRefusal::OffsetOutOfRange {
        next_offset: Offset(70_000),
    };
    let replies = [
        ("v1.append.reply", ShardReply::Append(verdicts)),
        ("v1.done.reply", ShardReply::Done),
        (
            "v1.trimmed.reply",
            ShardReply::Trimmed {
                log_start: Offset(70_000),
            },
        ),
        (
            "v1.unknown.reply",
            ShardReply::Refused(CommandRefusal::UnknownPartition),
        ),
        (
            "v1.exists.reply",
            ShardReply::Refused(CommandRefusal::PartitionExists),
        ),
        (
            "v1.deleted.reply",
            ShardReply::Refused(CommandRefusal::PartitionDeleted),
        ),
        ("v1.range.reply", ShardReply::Refused(out_of_range)),
        ("v1.malformed.reply", ShardReply::Malformed),
        (
            "v1.group_refused.reply",
            ShardReply::Group(Err(GroupRefusal::Unsupported)),
        ),
        (
            "v1.group_done.reply",
            ShardReply::Group(Ok(group_outcome())),
        ),
    ];
    for (name, reply) in replies {
        let stored = golden(name, &reply.encode());
        assert_eq!(ShardReply::decode(&stored), Ok(reply), "{name}");
    }
}

fn config_of_level_3() -> PartitionConfig {
    PartitionConfig {
        version: 300,
        retention_ms: Some(604_800_000),
        retention_bytes: Some(0),
        ..config()
    }
}

#[test]
fn commands_and_a_snapshot_of_level_3() {
    let (tp, config) = (tp(300, 2), config_of_level_3());
    let level = ShardCommand::RaiseFeatureLevel {
        level: FeatureLevel::TOPICS,
    };
    let trim = ShardCommand::TrimLog {
        tp,
        log_start: Offset(7),
        config_version: Some(300),
    };
    let mut state = state();
    for (position, (name, command)) in (1_000..).zip([
        ("v3.level.command", level),
        (
            "v3.configure.command",
            ShardCommand::ConfigurePartition { tp, config },
        ),
        ("v3.trim.command", trim),
    ]) {
        let stored = golden(name, &command.encode().to_contiguous());
        let decoded = ShardCommand::decode(&Payload::from(Bytes::from(stored)));
        assert_eq!(decoded, Ok(command.clone()), "{name}");
        let at = EntryContext {
            position,
            leadership: 9,
        };
        let reply = state.apply(at, command, &mut Vec::new());
        assert!(
            !matches!(reply, ShardReply::Refused(_)),
            "{name}: {reply:?}"
        );
    }
    let stored = golden("v3.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored), Ok(state));
    let refused = ShardReply::Refused(CommandRefusal::OtherConfiguration);
    let stored = golden("v3.other_configuration.reply", &refused.encode());
    assert_eq!(ShardReply::decode(&stored), Ok(refused));
}

/// A compacted partition, as level 4 keeps it.
#[test]
fn commands_and_a_snapshot_of_level_4() {
    let config = PartitionConfig {
        compact: true,
        delete_retention_ms: 1_000,
        min_dirty_ppm: 500_000,
        min_compaction_lag_ms: 5,
        max_compaction_lag_ms: Some(60_000),
        segment_bytes: 100,
        ..config_of_level_3()
    };
    let tp = tp(300, 2);
    let compact = |upto, time| ShardCommand::CompactLog {
        tp,
        upto: Offset(upto),
        time: TimestampMs(time),
        config_version: config.version,
    };
    let level = FeatureLevel::COMPACTION;
    let mut commands = vec![
        ShardCommand::RaiseFeatureLevel { level },
        ShardCommand::CreatePartition { tp, config },
    ];
    for (n, value) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        commands.push(append(
            1_700_000_000_000 + n as i64,
            &[(tp, batch(None, value))],
        ));
    }
    commands.extend([compact(1, 1_700_000_001_000), compact(3, 1_700_000_002_500)]);
    let mut state = ShardState::new();
    for (position, command) in (1..).zip(&commands) {
        let at = EntryContext {
            position,
            leadership: 1,
        };
        let reply = state.apply(at, command.clone(), &mut Vec::new());
        assert!(
            !matches!(reply, ShardReply::Refused(_)),
            "{command:?}: {reply:?}"
        );
    }
    let stored = golden("v4.snapshot", &state.encode_snapshot());
    assert_eq!(ShardState::decode_snapshot(&stored).as_ref(), Ok(&state));
    let found = state.partition(tp).and_then(|facts| facts.compaction);
    let found = found.expect("compacted");
    assert_eq!((found.upto, found.tombstones_below), (Offset(3), Offset(1)));
    let named = [
        ("v4.create.command", commands[1].clone()),
        ("v4.compact.command", compact(3, 1_700_000_002_500)),
    ];
    for (name, command) in named {
        let stored = golden(name, &command.encode().to_contiguous());
        assert_eq!(
            ShardCommand::decode(&Payload::from(Bytes::from(stored))),
            Ok(command)
        );
    }
}
