//! When the leader of a shard has a partition compacted, and how far.

use super::*;

/// Segments of ten offsets and 100 bytes, appended at these times; the last one still grows.
fn segments(appended: &[i64]) -> Vec<SegmentManifest> {
    let segment = |(at, appended): (usize, &i64)| SegmentManifest {
        base_offset: Offset(at as u64 * 10),
        len_bytes: 100,
        next_offset: Offset(at as u64 * 10 + 10),
        max_timestamp: TimestampMs(0),
        last_append_time: TimestampMs(*appended),
        sealed: at + 1 < appended_len(),
        checksum: 0,
        version: 0,
    };
    fn appended_len() -> usize {
        5
    }
    assert_eq!(appended.len(), appended_len());
    appended.iter().enumerate().map(segment).collect()
}

fn upto(offset: u64) -> Compacted {
    Compacted {
        generation: 1,
        upto: Offset(offset),
    }
}

#[test]
fn enough_of_the_log_must_be_new() {
    let segments = segments(&[10, 20, 30, 40, 50]);
    let config = PartitionConfig {
        compact: true,
        min_dirty_ppm: 500_000,
        ..PartitionConfig::default()
    };
    let due = |compacted| {
        let found = Cleanable::of(&segments, compacted, (&config, TimestampMs(1_000)));
        (found.dirty_ppm(), found.due(&config))
    };
    assert_eq!(due(Compacted::default()), (1_000_000, Some(Offset(40))));
    assert_eq!(due(upto(10)), (750_000, Some(Offset(40))));
    assert_eq!(due(upto(20)), (500_000, None), "more than that part");
    assert_eq!(due(upto(40)), (0, None), "what grows does not count");
    let nothing = Cleanable::of(&[], Compacted::default(), (&config, TimestampMs(0)));
    assert_eq!((nothing.dirty_ppm(), nothing.due(&config)), (0, None));
}

#[test]
fn young_records_stay_and_old_ones_do_not_wait() {
    let segments = segments(&[10, 20, 300, 40, 50]);
    let mut config = PartitionConfig {
        compact: true,
        min_compaction_lag_ms: 700,
        min_dirty_ppm: 900_000,
        ..PartitionConfig::default()
    };
    let found = |config: &PartitionConfig, compacted, now| {
        Cleanable::of(&segments, compacted, (config, TimestampMs(now))).due(config)
    };
    // The third was appended too lately, whatever the clock said at the fourth.
    assert_eq!(found(&config, upto(0), 900), Some(Offset(20)));
    assert_eq!(found(&config, upto(0), 1_000), Some(Offset(40)));
    assert_eq!(found(&config, upto(20), 1_000), None, "not dirty enough");
    config.max_compaction_lag_ms = Some(990);
    // The one before ended at 20, so its first record may be 990 ms old at 1,010.
    assert_eq!(found(&config, upto(20), 1_009), None);
    assert_eq!(found(&config, upto(20), 1_010), Some(Offset(40)));
    assert_eq!(found(&config, upto(40), 9_999), None);
}
