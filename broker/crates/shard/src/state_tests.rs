//! Apply, rule by rule; `model_tests` tries them all together.

use bytes::Bytes;
use highwater_proto::batch::{BatchHeader, HEADER_LEN, RecordBatch};
use highwater_proto::{LeaderEpoch, Offset, TimestampMs};

use super::*;
use crate::CommandRefusal;
use crate::PartitionConfig;
use crate::test_support::{Driver, batch, builder, tp};

fn config() -> PartitionConfig {
    PartitionConfig::default()
}

fn appended(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Appended { base_offset, .. } => base_offset.0,
        other => panic!("not appended: {other:?}"),
    }
}

#[test]
fn offsets_are_dense_and_the_batch_is_shared() {
    let mut driver = Driver::new();
    let mut expected = 0;
    for records in [3, 1, 10] {
        let sent = batch(None, records);
        let (verdict, effect) = driver.append(sent.clone());
        let effect = effect.expect("an effect");
        assert_eq!(appended(verdict), expected);
        assert_eq!(effect.batch.body.as_ptr(), sent.slice(16..).as_ptr());
        let stored = RecordBatch::validate_stored(effect.batch.to_bytes()).expect("a batch");
        assert_eq!(stored.header().base_offset, effect.base_offset);
        assert_eq!(stored.header().last_offset(), effect.last_offset);
        assert_eq!(stored.header().leader_epoch, Some(effect.leader_epoch));
        expected += u64::from(records);
        assert_eq!(effect.last_offset, Offset(expected - 1));
    }
    let facts = driver.state.partition(tp(0)).expect("there");
    assert_eq!(
        (facts.log_start, facts.next_offset),
        (Offset(0), Offset(expected))
    );
}

#[test]
fn batches_without_a_producer_are_appended_each_time() {
    let mut driver = Driver::new();
    let sent = batch(None, 2);
    assert_eq!(appended(driver.append(sent.clone()).0), 0);
    assert_eq!(appended(driver.append(sent).0), 2);
}

#[test]
fn append_time_is_told_only_if_the_records_have_it() {
    let mut driver = Driver::new();
    let created = driver.append(batch(None, 1)).0;
    assert!(matches!(
        created,
        Verdict::Appended {
            append_time: None,
            ..
        }
    ));
    let sent = RecordBatch::validate(batch(None, 1), 1000).expect("valid");
    let sent = sent.with_log_append_time(TimestampMs(77)).into_bytes();
    let (verdict, effect) = driver.append(sent);
    let told = Some(TimestampMs(77));
    assert!(matches!(verdict, Verdict::Appended { append_time, .. } if append_time == told));
    assert_eq!(effect.expect("an effect").max_timestamp, TimestampMs(77));
}

#[test]
fn what_is_no_batch_is_rejected_and_changes_nothing() {
    let whole = batch(None, 1);
    let longer = Bytes::from([&whole[..], &[0]].concat());
    let mut two_for_one = whole.to_vec();
    two_for_one[HEADER_LEN - 1] = 2;
    let mut no_sequence = batch(Some((1, 0, 0)), 1).to_vec();
    no_sequence[HEADER_LEN - 8..HEADER_LEN - 4].fill(0xff);
    let bad = [
        Bytes::new(),
        whole.slice(..HEADER_LEN),
        whole.slice(..whole.len() - 1),
        longer,
        two_for_one.into(),
        no_sequence.into(),
        builder(None, 0).build(),
        builder(None, 1).control().build(),
        builder(Some((1, 0, 0)), 1).transactional().build(),
    ];
    let mut driver = Driver::new();
    let before = driver.state.partition(tp(0));
    for bytes in bad {
        let verdict = driver.append(bytes.clone()).0;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::CorruptBatch),
            "{bytes:?}"
        );
    }
    assert_eq!(driver.state.partition(tp(0)), before);
}

#[test]
fn batches_of_one_entry_are_decided_one_by_one() {
    let mut driver = Driver::new();
    let request = |partition: u32, numbers: Option<(u64, u16, u32)>| AppendRequest {
        tp: tp(partition),
        append_time: TimestampMs(0),
        batch: batch(numbers, 2),
    };
    let batches = vec![
        request(0, Some((1, 0, 0))),
        request(1, None),
        request(0, Some((1, 0, 0))),
        request(0, Some((1, 0, 4))),
        request(0, Some((1, 0, 2))),
    ];
    let (reply, effects) = driver.apply(ShardCommand::Append { batches });
    let ShardReply::Append(verdicts) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(appended(verdicts[0]), 0);
    assert_eq!(
        verdicts[1],
        Verdict::Rejected(RejectReason::UnknownPartition)
    );
    assert_eq!(
        verdicts[2],
        Verdict::Duplicate {
            base_offset: Offset(0)
        }
    );
    assert_eq!(
        verdicts[3],
        Verdict::Rejected(RejectReason::OutOfOrderSequence)
    );
    assert_eq!(appended(verdicts[4]), 2);
    assert_eq!(effects.len(), 2);
}

#[test]
fn the_leader_epoch_counts_leaderships_under_which_the_partition_was_written() {
    let mut driver = Driver::new();
    let mut epochs = Vec::new();
    for leadership in [1, 1, 2, 9, 9, 10] {
        driver.leadership = leadership;
        let (_, effect) = driver.append(batch(None, 1));
        epochs.push(effect.expect("an effect").leader_epoch);
    }
    assert_eq!(epochs, [0, 0, 1, 2, 2, 3].map(LeaderEpoch));
    // Another partition has nothing to do with it.
    assert_eq!(driver.apply(create(1)).0, ShardReply::Done);
    assert_eq!(
        driver.state.partition(tp(1)).map(|p| p.leader_epoch),
        Some(LeaderEpoch(0))
    );
}

fn create(partition: u32) -> ShardCommand {
    ShardCommand::CreatePartition {
        tp: tp(partition),
        config: config(),
    }
}

#[test]
fn a_segment_ends_by_size_and_by_age() {
    let len = batch(None, 1).len() as u64;
    let sized = PartitionConfig {
        segment_bytes: 2 * len,
        ..config()
    };
    let mut driver = Driver::with(sized);
    let new = |driver: &mut Driver| driver.append(batch(None, 1)).1.expect("effect").new_segment;
    let rolls: Vec<bool> = (0..5).map(|_| new(&mut driver)).collect();
    assert_eq!(rolls, [true, false, true, false, true]);
    // A batch larger than a segment has one of its own.
    let big = driver.append(batch(None, 50)).1.expect("an effect");
    assert!(big.new_segment);
    assert!(new(&mut driver));

    let mut driver = Driver::with(PartitionConfig {
        segment_ms: 100,
        ..config()
    });
    let mut rolls = Vec::new();
    for time in [1000, 1099, 1100, 500, 1199, 1200] {
        driver.time = time;
        rolls.push(new(&mut driver));
    }
    assert_eq!(rolls, [true, false, true, false, false, true]);
}

#[test]
fn creating_and_deleting_may_be_repeated_and_ids_do_not_come_back() {
    let mut driver = Driver::new();
    let effect = Effect::Created {
        tp: tp(1),
        config: config(),
        arrival: 0,
    };
    assert_eq!(driver.apply(create(1)), (ShardReply::Done, vec![effect]));
    assert_eq!(driver.apply(create(1)), (ShardReply::Done, vec![]));
    let other = PartitionConfig {
        segment_bytes: 1,
        ..config()
    };
    let command = ShardCommand::CreatePartition {
        tp: tp(1),
        config: other,
    };
    let exists = ShardReply::Refused(CommandRefusal::PartitionExists);
    assert_eq!(driver.apply(command), (exists, vec![]));

    let delete = || ShardCommand::DeletePartition { tp: tp(1) };
    let effect = Effect::Deleted { tp: tp(1) };
    assert_eq!(driver.apply(delete()), (ShardReply::Done, vec![effect]));
    assert_eq!(driver.apply(delete()), (ShardReply::Done, vec![]));
    assert!(!driver.state.has_partition(tp(1)));
    let deleted = ShardReply::Refused(CommandRefusal::PartitionDeleted);
    assert_eq!(driver.apply(create(1)), (deleted, vec![]));
}

#[test]
fn few_deleted_partitions_are_remembered() {
    let mut driver = Driver::new();
    let count = u32::try_from(DELETED_REMEMBERED).expect("small");
    for partition in 1..count + 2 {
        driver.apply(ShardCommand::DeletePartition { tp: tp(partition) });
    }
    assert_eq!(driver.state.deleted.len(), DELETED_REMEMBERED);
    assert_eq!(driver.apply(create(1)).0, ShardReply::Done);
    let deleted = ShardReply::Refused(CommandRefusal::PartitionDeleted);
    assert_eq!(driver.apply(create(2)).0, deleted);
    driver.restart();
}

#[test]
fn configuring_changes_what_comes_after() {
    let mut driver = Driver::new();
    assert!(
        driver
            .append(batch(None, 1))
            .1
            .is_some_and(|effect| effect.new_segment)
    );
    let config = PartitionConfig {
        segment_bytes: 1,
        ..config()
    };
    let command = ShardCommand::ConfigurePartition { tp: tp(0), config };
    let effect = Effect::Configured { tp: tp(0), config };
    assert_eq!(
        driver.apply(command.clone()),
        (ShardReply::Done, vec![effect])
    );
    assert_eq!(driver.apply(command), (ShardReply::Done, vec![]));
    assert!(
        driver
            .append(batch(None, 1))
            .1
            .is_some_and(|effect| effect.new_segment)
    );
    let command = ShardCommand::ConfigurePartition { tp: tp(5), config };
    let unknown = ShardReply::Refused(CommandRefusal::UnknownPartition);
    assert_eq!(driver.apply(command), (unknown, vec![]));
}

#[test]
fn a_log_is_trimmed_up_to_its_end_and_never_back() {
    let mut driver = Driver::new();
    driver.append(batch(None, 10));
    let trim = |to: u64| ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(to),
        config_version: None,
    };
    let trimmed = |to: u64| ShardReply::Trimmed {
        log_start: Offset(to),
    };
    let effect = Effect::Trimmed {
        tp: tp(0),
        log_start: Offset(4),
    };
    assert_eq!(driver.apply(trim(4)), (trimmed(4), vec![effect]));
    assert_eq!(driver.apply(trim(2)), (trimmed(4), vec![]));
    let refusal = CommandRefusal::OffsetOutOfRange {
        next_offset: Offset(10),
    };
    assert_eq!(
        driver.apply(trim(11)),
        (ShardReply::Refused(refusal), vec![])
    );
    assert_eq!(driver.apply(trim(10)).0, trimmed(10));
    let verdict = driver.append(batch(None, 1)).0;
    let log_start = Offset(10);
    let base_offset = Offset(10);
    assert_eq!(
        verdict,
        Verdict::Appended {
            base_offset,
            log_start,
            append_time: None
        }
    );
    let command = ShardCommand::TrimLog {
        tp: tp(5),
        log_start: Offset(0),
        config_version: None,
    };
    let unknown = ShardReply::Refused(CommandRefusal::UnknownPartition);
    assert_eq!(driver.apply(command), (unknown, vec![]));
}

#[test]
fn a_retry_after_a_trim_still_gets_its_offset() {
    let mut driver = Driver::new();
    assert_eq!(appended(driver.send((1, 0, 0), 5)), 0);
    driver.apply(ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(5),
        config_version: None,
    });
    assert_eq!(
        driver.send((1, 0, 0), 5),
        Verdict::Duplicate {
            base_offset: Offset(0)
        }
    );
}

#[test]
fn the_rules_are_raised_and_never_lowered() {
    let mut driver = Driver::new();
    let level = FeatureLevel::LATEST;
    for level in [level, FeatureLevel::FIRST] {
        assert_eq!(
            driver.apply(ShardCommand::RaiseFeatureLevel { level }).0,
            ShardReply::Done
        );
    }
    assert_eq!(driver.state.rules(), level);
}

#[test]
fn producers_of_idle_partitions_are_forgotten_too() {
    let limited = PartitionConfig {
        producer_expiry_ms: 1000,
        ..config()
    };
    let mut driver = Driver::with(limited);
    driver.send((1, 0, 0), 1);
    for partition in 1..4 {
        let config = limited;
        driver.apply(ShardCommand::CreatePartition {
            tp: tp(partition),
            config,
        });
    }
    driver.time += 1000;
    for _ in 0..4 {
        let batches = vec![AppendRequest {
            tp: tp(3),
            append_time: TimestampMs(driver.time),
            batch: batch(None, 1),
        }];
        driver.apply(ShardCommand::Append { batches });
    }
    assert_eq!(
        driver.state.partition(tp(0)).map(|facts| facts.producers),
        Some(0)
    );
}

#[test]
fn a_clock_that_jumps_a_year_does_not_let_a_retry_in_twice() {
    let mut driver = Driver::with(PartitionConfig {
        producer_expiry_ms: 86_400_000,
        ..config()
    });
    driver.send((1, 0, 0), 1);
    for jump in [365, -365, 365] {
        driver.time += jump * 86_400_000;
        assert_eq!(
            driver.send((1, 0, 0), 1),
            Verdict::Duplicate {
                base_offset: Offset(0)
            }
        );
    }
}

#[test]
#[should_panic(expected = "applied twice")]
fn an_entry_is_not_applied_twice() {
    let mut driver = Driver::new();
    driver.append(batch(None, 1));
    driver.position -= 1;
    driver.append(batch(None, 1));
}

#[test]
fn a_copy_does_not_change_with_the_original() {
    let mut driver = Driver::new();
    driver.send((1, 0, 0), 1);
    let frozen = driver.state.clone();
    let bytes = frozen.encode_snapshot();
    driver.send((1, 0, 1), 1);
    driver.apply(create(1));
    assert_eq!(frozen.encode_snapshot(), bytes);
    assert_ne!(driver.state.encode_snapshot(), bytes);
}

#[test]
fn a_partition_takes_little_memory() {
    // And as much again for its place in the map, its counts and its allocation.
    assert!(size_of::<Partition>() <= 232, "{}", size_of::<Partition>());
}

#[test]
fn the_header_alone_is_enough_to_decide() {
    // Record bytes that nobody could decode: apply does not look at them.
    let mut bytes = batch(Some((1, 0, 0)), 2).to_vec();
    bytes[HEADER_LEN..].fill(0xee);
    let mut driver = Driver::new();
    assert_eq!(appended(driver.append(bytes.clone().into()).0), 0);
    assert_eq!(
        BatchHeader::parse(&bytes).map(|header| header.record_count),
        Ok(2)
    );
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::TrimsTooMuch,
        "state::tests::a_log_is_trimmed_up_to_its_end_and_never_back",
    );
}
