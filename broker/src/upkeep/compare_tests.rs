//! Which ranges are compared, and what is said of those that differ.

use highwater_proto::TimestampMs;

use super::*;

const TP: TopicPartition = TopicPartition {
    topic: TopicId(7),
    partition: PartitionId(1),
};

fn segment(base: u64, next: u64, checksum: u32) -> SegmentManifest {
    SegmentManifest {
        base_offset: Offset(base),
        len_bytes: (next - base) * 100,
        next_offset: Offset(next),
        max_timestamp: TimestampMs(1),
        last_append_time: TimestampMs(1),
        sealed: true,
        checksum,
        version: 0,
    }
}

fn compared(mine: &[SegmentManifest], theirs: &[SegmentManifest]) -> (u32, Vec<u64>) {
    compared_after((mine, Compacted::default()), (theirs, Compacted::default()))
}

fn compared_after(
    mine: (&[SegmentManifest], Compacted),
    theirs: (&[SegmentManifest], Compacted),
) -> (u32, Vec<u64>) {
    let ranges = |(segments, compacted): (&[SegmentManifest], Compacted)| {
        let sealed = segments.iter().filter(|segment| segment.sealed);
        let ranges = sealed.map(|segment| closed(TP, segment, compacted));
        ranges.collect::<Vec<_>>()
    };
    let mine = BTreeMap::from([(TP, ranges(mine))]);
    let theirs = ranges(theirs);
    let answer = differences(&mine, &theirs);
    let differing = answer.differing.iter().map(|range| range.base_offset);
    (answer.compared, differing.collect())
}

#[test]
fn only_ranges_that_both_have_from_end_to_end_are_compared() {
    let theirs = [segment(0, 10, 1), segment(10, 20, 2), segment(20, 30, 3)];
    assert_eq!(compared(&theirs, &theirs), (3, vec![]));
    // Trimmed here, there, or not here at all.
    assert_eq!(compared(&theirs[1..], &theirs), (2, vec![]));
    assert_eq!(compared(&theirs, &theirs[2..]), (1, vec![]));
    assert_eq!(compared(&[], &theirs), (0, vec![]));
    // Filled anew from the middle of a segment on; still growing.
    assert_eq!(compared(&[segment(5, 10, 9)], &theirs), (0, vec![]));
    let growing = SegmentManifest {
        sealed: false,
        ..segment(20, 25, 9)
    };
    assert_eq!(compared(&[growing], &theirs), (0, vec![]));
}

#[test]
fn what_another_compaction_left_is_another_range() {
    let after = |generation, upto| Compacted {
        generation,
        upto: Offset(upto),
    };
    let theirs = [segment(0, 10, 1), segment(10, 20, 2)];
    let mine = [segment(0, 10, 8), segment(10, 20, 2)];
    // Compacted there and not here, or by another one: only what lies behind it is compared.
    for (ours, other) in [(after(0, 0), after(7, 10)), (after(5, 10), after(7, 10))] {
        let compared = compared_after((&mine, ours), (&theirs, other));
        assert_eq!(compared, (1, vec![]));
    }
    let same = after(7, 10);
    assert_eq!(compared_after((&mine, same), (&theirs, same)), (2, vec![0]));
}

#[test]
fn other_bytes_and_other_lengths_differ() {
    let theirs = [segment(0, 10, 1), segment(10, 20, 2)];
    let mine = [segment(0, 10, 8), segment(10, 20, 2)];
    assert_eq!(compared(&mine, &theirs), (2, vec![0]));
    let longer = SegmentManifest {
        len_bytes: 1,
        ..theirs[1]
    };
    assert_eq!(compared(&[longer], &theirs), (1, vec![10]));
}

#[test]
fn an_alarm_names_both_brokers_the_partition_and_the_range_and_ends() {
    let divergences = Divergences::default();
    let (me, other, shard) = (NodeId(1), NodeId(3), ShardId(5));
    let one = |base: u64| Divergence {
        tp: TP,
        base: Offset(base),
        end: Offset(base + 10),
        other,
        sums: [(1_000, 1), (1_000, 2)],
    };
    divergences.note(me, shard, BTreeSet::from([one(0), one(10)]));
    let alarms = divergences.alarms(me);
    assert_eq!(alarms.len(), 1);
    for words in [
        "brokers 1 and 3",
        "shard 5",
        "7-1",
        "offsets 0 to 10",
        "1 ranges more",
    ] {
        assert!(alarms[0].what.contains(words), "{}", alarms[0].what);
    }
    assert!(alarms[0].cure.contains("cluster repair 3 5"));
    assert_eq!(divergences.count(), 2);
    divergences.note(me, shard, BTreeSet::new());
    assert_eq!((divergences.count(), divergences.alarms(me)), (0, vec![]));
}
