//! What may go, by age and by size.

use highwater_env::OsDisk;
use proptest::prelude::*;

use super::*;
use crate::PartitionLog;
use crate::test_support::{Fixture, batch};

/// Segments of ten records each.
fn log(segments: &[(u64, i64)]) -> Vec<Aged> {
    let aged = |(at, (bytes, last_append)): (u64, &(u64, i64))| Aged {
        next_offset: Offset((at + 1) * 10),
        bytes: *bytes,
        last_append: TimestampMs(*last_append),
    };
    (0..).zip(segments).map(aged).collect()
}

fn by_age(from: i64) -> Retention {
    Retention {
        keep_from: Some(TimestampMs(from)),
        keep_bytes: None,
    }
}

fn by_size(bytes: u64) -> Retention {
    Retention {
        keep_from: None,
        keep_bytes: Some(bytes),
    }
}

#[test]
fn age_takes_whole_segments_and_the_last_one_too() {
    let log = log(&[(5, 100), (5, 200), (5, 300)]);
    for (from, end) in [
        (100, None),
        (101, Some(10)),
        (250, Some(20)),
        (301, Some(30)),
    ] {
        assert_eq!(cut(&log, &by_age(from)), end.map(Offset), "{from}");
    }
    assert_eq!(cut(&[], &by_age(1_000)), None);
    assert_eq!(cut(&log, &Retention::default()), None);
}

#[test]
fn size_keeps_at_least_what_it_says_and_the_last_segment() {
    let log = log(&[(5, 100), (5, 200), (5, 300)]);
    for (bytes, end) in [
        (11, None),
        (10, Some(10)),
        (6, Some(10)),
        (5, Some(20)),
        (0, Some(20)),
    ] {
        assert_eq!(cut(&log, &by_size(bytes)), end.map(Offset), "{bytes}");
    }
}

#[test]
fn a_clock_that_was_behind_makes_nothing_older_than_what_lies_before_it() {
    // The second was stamped by a broker whose clock stood a month back.
    let log = log(&[(5, 1_000), (5, 1), (5, 1_001)]);
    assert_eq!(cut(&log, &by_age(900)), None);
    assert_eq!(cut(&log, &by_age(1_001)), Some(Offset(20)));
}

#[test]
fn a_clock_that_was_behind_makes_no_segment_older_than_any_append_in_it() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let append = |log: &mut PartitionLog<OsDisk>, base: u64, time: i64| {
        log.append(&batch(base, &[time], 10)).expect("appended");
    };
    append(&mut log, 0, 1_000);
    // The clock is set back by a month and right again later; nothing is written in between.
    append(&mut log, 1, 1);
    assert_eq!(log.reader().retention_cut(&by_age(900)), None);
    assert_eq!(log.reader().retention_cut(&by_age(1_001)), Some(Offset(2)));
    // Also over a restart.
    let mut log = fixture.reopen(&log.freeze());
    assert_eq!(log.reader().retention_cut(&by_age(900)), None);
    append(&mut log, 2, 2);
    assert_eq!(log.reader().retention_cut(&by_age(900)), None);
}

proptest! {
    #[test]
    fn nothing_goes_that_a_rule_keeps(
        segments in prop::collection::vec((1u64..50, 0i64..100), 0..12),
        from in prop::option::of(0i64..120),
        bytes in prop::option::of(0u64..300),
    ) {
        let log = log(&segments);
        let rule = Retention { keep_from: from.map(TimestampMs), keep_bytes: bytes };
        let end = cut(&log, &rule).map_or(0, |end| end.0);
        let gone = usize::try_from(end / 10).expect("small");
        let left: u64 = segments[gone..].iter().map(|(bytes, _)| bytes).sum();
        let is_old = |age: &(u64, i64)| from.is_some_and(|from| age.1 < from);
        let all_old = segments[..gone].iter().all(is_old);
        let enough = bytes.is_some_and(|bytes| left >= bytes) && gone < segments.len();
        prop_assert!(gone == 0 || all_old || enough);
    }
}
