//! Patterns match as described, and a fault strikes as often as it was asked to.

use super::*;

#[test]
fn stars_and_question_marks() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("*", "a/b", true),
        ("", "", true),
        ("", "a", false),
        ("wal/*", "wal/0001", true),
        ("wal/*", "walrus", false),
        ("*/wal/*.log", "n1/wal/a.log", true),
        ("*/wal/*.log", "n1/wal/a.log.tmp", false),
        ("*ab", "aab", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b*", "xxbxxaxx", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} on {text}");
    }
}

#[test]
fn a_fault_strikes_matching_paths_as_often_as_asked() {
    let faults = Faults::default();
    let once = faults.add(Fault {
        pattern: "wal/*".to_owned(),
        kind: FaultKind::SyncError,
        times: Some(1),
    });
    faults.add(Fault {
        pattern: "*".to_owned(),
        kind: FaultKind::SlowSync { millis: 7 },
        times: None,
    });
    let slow = SyncVerdict {
        delay: Duration::from_millis(7),
        fails: false,
    };
    assert_eq!(faults.on_sync(|| "data/1".to_owned()), slow);
    let failed = SyncVerdict {
        fails: true,
        ..slow
    };
    assert_eq!(faults.on_sync(|| "wal/1".to_owned()), failed);
    assert_eq!(faults.on_sync(|| "wal/1".to_owned()), slow);
    assert!(!faults.on_growth(|| "wal/1".to_owned()));
    let struck: Vec<_> = faults.all().iter().map(|rule| rule.struck).collect();
    assert_eq!(struck, [1, 3]);
    assert_eq!(faults.remove(once).map(|rule| rule.struck), Some(1));
    assert_eq!(faults.clear().len(), 1);
    assert_eq!(
        faults.on_sync(|| unreachable!("no rule, no path")),
        SyncVerdict::default()
    );
}

#[test]
fn only_a_full_disk_says_that_it_is_full() {
    let faults = Faults::default();
    let set = |pattern: &str, kind| {
        faults.add(Fault {
            pattern: pattern.to_owned(),
            kind,
            times: None,
        })
    };
    set("quota/*", FaultKind::NoSpace);
    set("full*", FaultKind::DiskFull);
    assert!(faults.on_growth(|| "quota/1".to_owned()));
    assert!(!faults.tells_full(|| "quota/1".to_owned()));
    assert!(faults.on_growth(|| "full/1".to_owned()));
    assert!(faults.tells_full(|| "full".to_owned()));
    let struck: Vec<_> = faults.all().iter().map(|rule| rule.struck).collect();
    assert_eq!(struck, [1, 1]);
}
