//! What retention may have taken, by bytes and by age.

use super::*;

fn kept(bytes: Option<u64>, ms: Option<u64>) -> Kept {
    let second = |at| Duration::from_secs(at);
    Kept {
        rule: Retained { bytes, ms },
        acknowledged: BTreeMap::from([
            (0, (second(1), 100)),
            (1, (second(2), 100)),
            (2, (second(3), 100)),
        ]),
        unknown: (0, 0),
    }
}

#[test]
fn so_many_bytes_stay() {
    let now = Duration::ZERO;
    assert_eq!(kept(Some(1_000), None).bound(now), 0);
    assert_eq!(kept(Some(200), None).bound(now), 1);
    assert_eq!(kept(Some(201), None).bound(now), 0);
    let mut one = kept(Some(200), None);
    // It may lie behind them all.
    one.unknown = (1, 100);
    assert_eq!(one.bound(now), 2);
}

#[test]
fn the_young_stay() {
    let one = kept(None, Some(5_000));
    // Two seconds are sure: the rest may be a matter of clocks.
    assert_eq!(one.bound(Duration::from_millis(2_900)), 0);
    assert_eq!(one.bound(Duration::from_millis(3_900)), 1);
    assert_eq!(one.bound(Duration::from_millis(4_100)), 2);
    assert_eq!(one.bound(Duration::from_secs(6)), 3);
}

#[test]
fn either_rule_lets_go() {
    let both = kept(Some(200), Some(5_000));
    assert_eq!(both.bound(Duration::from_millis(2_900)), 1);
    assert_eq!(both.bound(Duration::from_secs(6)), 3);
}
