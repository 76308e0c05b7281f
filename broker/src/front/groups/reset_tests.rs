//! Where a reset puts a partition.

use super::*;

fn position(start: u64, end: u64, found: Option<u64>) -> PartitionPosition {
    PartitionPosition {
        log_start_offset: start,
        high_watermark: end,
        found_offset: found,
        ..PartitionPosition::default()
    }
}

fn to(to: &To, from: Option<u64>, theirs: Option<u64>) -> Option<(u64, bool)> {
    let at = position(10, 50, Some(30));
    change(to, from, theirs, &at).map(|change| (change.to, change.clamped))
}

#[test]
fn every_way_leads_into_the_log() {
    assert_eq!(to(&To::Earliest(true), Some(20), None), Some((10, false)));
    assert_eq!(to(&To::Latest(true), None, None), Some((50, false)));
    assert_eq!(to(&To::Offset(42), None, None), Some((42, false)));
    assert_eq!(to(&To::Offset(3), None, None), Some((10, true)));
    assert_eq!(to(&To::Offset(u64::MAX), None, None), Some((50, true)));
    assert_eq!(to(&To::Shift(-5), Some(20), None), Some((15, false)));
    assert_eq!(to(&To::Shift(i64::MIN), Some(20), None), Some((10, true)));
    assert_eq!(
        to(&To::Shift(i64::MAX), Some(u64::MAX), None),
        Some((50, true))
    );
    assert_eq!(to(&To::Shift(1), None, None), None, "from nowhere");
    assert_eq!(to(&To::TimestampMs(5), None, None), Some((30, false)));
    let group = To::GroupPosition("other".to_owned());
    assert_eq!(to(&group, Some(20), Some(33)), Some((33, false)));
    assert_eq!(to(&group, Some(20), None), None, "the other is nowhere");
}
