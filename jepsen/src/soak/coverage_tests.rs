//! Only what overlapped and was proven counts as a pair, and the page shows what is missing.

use serde_json::Value as Json;

use super::*;

fn record(kind: Kind, from_ns: u64, healed_ns: u64, proven: bool) -> Record {
    Record {
        number: 0,
        kind,
        from_ns,
        healed_ns,
        asked_ns: from_ns,
        whole_before: false,
        nodes: vec![1],
        led: Vec::new(),
        proven,
        proof: Json::Null,
        begun: true,
        finding: None,
    }
}

#[test]
fn pairs_are_proven_faults_that_overlapped() {
    let faults = [
        record(Kind::KillLeader, 10, 20, true),
        record(Kind::Halves, 15, 40, true),
        record(Kind::DiskFull, 20, 30, true), // the kill had ended
        record(Kind::TransferLeaders, 0, 50, false),
    ];
    let expected = [("disk-full + halves", 1), ("halves + kill-leader", 1)];
    let found = pairs(&faults);
    let found: Vec<(&str, u64)> = found.iter().map(|(pair, n)| (&**pair, *n)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_page_names_every_kind_and_escapes_what_it_was_told() {
    let entry = Entry {
        seed: 7,
        seconds: 60.0,
        verdict: "FAIL".into(),
        broker: "0.1.0 (abc)".into(),
        brokers: 5,
        operations: [10, 8, 1, 1],
        acknowledged: 16,
        faults: BTreeMap::from([("pause".to_owned(), (120, 120))]),
        pairs: BTreeMap::from([("halves + pause".to_owned(), 3)]),
        members: BTreeMap::from([("a member of a group is killed".to_owned(), 130)]),
        skipped: vec!["ring: it takes five".into()],
        remarks: vec!["<odd>".into()],
        ..Entry::default()
    };
    let page = page(&[entry]);
    for kind in Kind::ALL {
        assert!(page.contains(kind.name()), "{}", kind.name());
    }
    assert!(page.contains("<td>pause<td>120<td>100"));
    assert!(page.contains("<td>disk-full<td class=none>0<td>100"));
    assert!(page.contains("<td>a member of a group is killed<td>130<td>100"));
    assert!(page.contains("<td>0.1.0 (abc)<td>5") && page.contains("skipped ring: it takes five"));
    assert!(page.contains("<td>3") && page.contains("&lt;odd>") && !page.contains("<odd>"));
}

#[test]
fn kinds_of_one_lane_do_not_overlap() {
    assert!(!Kind::KillLeader.can_overlap(Kind::DiskFull));
    assert!(Kind::KillLeader.can_overlap(Kind::Halves));
    assert!(!Kind::Laggard.can_overlap(Kind::Halves));
    assert!(Kind::Laggard.can_overlap(Kind::TransferLeaders));
}

#[test]
fn what_there_is_too_little_of_is_named() {
    let entry = |count| Entry {
        faults: BTreeMap::from([("pause".to_owned(), (count + 3, count))]),
        members: BTreeMap::from([("a member of a group stands still".to_owned(), 9)]),
        ..Entry::default()
    };
    let kinds = [Kind::Pause, Kind::Ring];
    let short = short_of(&[entry(4), entry(5)], &kinds, true, 9);
    assert_eq!(
        short,
        ["ring: 0 of 9", "a member of a group is killed: 0 of 9"]
    );
    assert_eq!(
        short_of(&[entry(4)], &kinds[..1], false, 9),
        ["pause: 4 of 9"]
    );
}
