//! What a command to compact decides, and when it decides nothing.

use crate::test_support::{Driver, batch, compact, compacted, tp};
use crate::{
    CommandRefusal, CompactionFacts, CompactionSettings as _, Effect, FeatureLevel, ShardCommand,
    ShardReply,
};
use highwater_proto::{Offset, TimestampMs};

/// Ten batches of two records, two batches to a segment: the last one begins at 16.
fn filled() -> Driver {
    let mut driver = Driver::new();
    let level = FeatureLevel::COMPACTION;
    driver.apply(ShardCommand::RaiseFeatureLevel { level });
    driver.apply(ShardCommand::ConfigurePartition {
        tp: tp(0),
        config: compacted(),
    });
    for _ in 0..10 {
        driver.append(batch(None, 2));
    }
    driver
}

fn facts(driver: &Driver) -> Option<CompactionFacts> {
    driver.state.partition(tp(0)).expect("there").compaction
}

#[test]
fn below_level_4_nothing_is_kept_or_decided() {
    let mut driver = Driver::new();
    let level = FeatureLevel::TOPICS;
    driver.apply(ShardCommand::RaiseFeatureLevel { level });
    let config = compacted();
    driver.apply(ShardCommand::ConfigurePartition { tp: tp(0), config });
    let kept = driver.state.partition(tp(0)).expect("there").config;
    assert_eq!(kept, config.without_compaction());
    for _ in 0..10 {
        driver.append(batch(None, 2));
    }
    let refused = ShardReply::Refused(CommandRefusal::OtherConfiguration);
    assert_eq!(driver.apply(compact(8, 0)), (refused, vec![]));
}

#[test]
fn only_closed_segments_and_only_what_is_new() {
    let mut driver = filled();
    let next_offset = Offset(20);
    let out = ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset });
    assert_eq!(
        driver.apply(compact(17, 0)),
        (out.clone(), vec![]),
        "it may still grow"
    );
    assert_eq!(driver.apply(compact(0, 0)), (out, vec![]));
    let other = ShardCommand::CompactLog {
        tp: tp(0),
        upto: Offset(8),
        time: TimestampMs(0),
        config_version: 2,
    };
    let refused = ShardReply::Refused(CommandRefusal::OtherConfiguration);
    assert_eq!(driver.apply(other), (refused, vec![]));
    assert_eq!(facts(&driver), None);
    let (reply, effects) = driver.apply(compact(16, 5_000));
    assert_eq!(reply, ShardReply::Done);
    let decided = CompactionFacts {
        generation: driver.position,
        upto: Offset(16),
        floor: Offset(0),
        tombstones_below: Offset(0),
        segment_bytes: 200,
    };
    let effect = Effect::Compacted {
        tp: tp(0),
        compaction: decided,
    };
    assert_eq!(effects, [effect]);
    // Again, and by a leader that was behind.
    for upto in [16, 8] {
        assert_eq!(
            driver.apply(compact(upto, 9_000)),
            (ShardReply::Done, vec![])
        );
    }
    assert_eq!(facts(&driver), Some(decided));
    driver.restart();
    assert_eq!(facts(&driver), Some(decided));
}

#[test]
fn tombstones_stay_for_their_time_after_the_first_compaction_that_covered_them() {
    let mut driver = filled();
    let below = |driver: &mut Driver, upto, time| {
        driver.append(batch(None, 2));
        assert_eq!(driver.apply(compact(upto, time)).0, ShardReply::Done);
        facts(driver).expect("decided").tombstones_below.0
    };
    assert_eq!(below(&mut driver, 4, 1_000), 0);
    assert_eq!(below(&mut driver, 8, 1_500), 0);
    assert_eq!(below(&mut driver, 12, 1_999), 0);
    driver.restart();
    assert_eq!(below(&mut driver, 16, 2_000), 4);
    // A clock that goes back takes nothing back, and nothing goes too early when it is right again.
    assert_eq!(below(&mut driver, 18, 100), 4);
    assert_eq!(below(&mut driver, 20, 2_600), 8);
    assert_eq!(below(&mut driver, 22, 3_000), 18);
    driver.apply(ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(10),
        config_version: None,
    });
    assert_eq!(below(&mut driver, 24, 9_000), 22);
    assert_eq!(facts(&driver).expect("decided").floor, Offset(10));
}

#[test]
fn however_often_it_is_compacted_the_state_stays_small_and_nothing_goes_early() {
    let mut driver = filled();
    for n in 0..200_u64 {
        driver.append(batch(None, 2));
        driver.append(batch(None, 2));
        let time = 1_000 + n as i64;
        assert_eq!(driver.apply(compact(16 + n * 4, time)).0, ShardReply::Done);
        // 1,000 ms have not passed for any of them.
        assert_eq!(facts(&driver).expect("decided").tombstones_below, Offset(0));
    }
    assert!(driver.state.encode_snapshot().len() < 2_000);
    driver.append(batch(None, 2));
    driver.append(batch(None, 2));
    driver.apply(compact(16 + 800, 2_030));
    // The 31st was covered at 1,030.
    let below = facts(&driver).expect("decided").tombstones_below;
    assert_eq!(below, Offset(16 + 30 * 4));
    driver.append(batch(None, 2));
    driver.append(batch(None, 2));
    driver.apply(compact(16 + 804, 2_198));
    // Those in between count with the last.
    assert_eq!(facts(&driver).expect("decided").tombstones_below, below);
}

#[test]
fn a_segment_is_closed_in_time_to_be_compacted_in_time() {
    let mut config = compacted();
    config.segment_bytes = 0;
    config.segment_ms = 1_000_000;
    for (compacted, rolls) in [(true, true), (false, false)] {
        let mut driver = Driver::new();
        let level = FeatureLevel::COMPACTION;
        driver.apply(ShardCommand::RaiseFeatureLevel { level });
        config.compact = compacted;
        driver.apply(ShardCommand::ConfigurePartition { tp: tp(0), config });
        driver.append(batch(None, 1));
        driver.time += 60_000;
        let (_, effect) = driver.append(batch(None, 1));
        assert_eq!(effect.expect("appended").new_segment, rolls);
    }
}
