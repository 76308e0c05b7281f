//! Too late is a finding, and no other fault is taken for the reason.

use serde_json::Value as Json;

use super::*;
use crate::schedule::Kind;
use crate::workload::Acknowledged;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn record(number: u32, kind: Kind, from_s: u64, healed_s: u64) -> Record {
    Record {
        number,
        kind,
        from_ns: from_s * SECOND,
        healed_ns: healed_s * SECOND,
        asked_ns: from_s * SECOND,
        whole_before: true,
        nodes: vec![1],
        led: vec![0],
        proven: true,
        proof: Json::Null,
        begun: true,
        finding: None,
    }
}

/// Two partitions that take a record each tenth of a second until a second one, and again from then on.
fn acks(stops_ms: u64, goes_on_ms: u64) -> Vec<Acknowledged> {
    let times = (0..600).map(|tenth| tenth * 100);
    let times = times.filter(|at| *at <= stops_ms || *at >= goes_on_ms);
    let ack = |at: u64| {
        (0..2).map(move |partition| Acknowledged {
            partition,
            offset: 0,
            invoked_ns: at * MS,
            at_ns: at * MS + MS,
        })
    };
    times.flat_map(ack).collect()
}

fn seen<'a>(records: &'a [Record], acknowledged: &'a [Acknowledged]) -> Seen<'a> {
    Seen {
        records,
        acknowledged,
        rejoins: &[],
        partitions: 2,
        until_ns: 60 * SECOND,
    }
}

fn judge(records: &[Record], acknowledged: &[Acknowledged]) -> (Vec<String>, u32) {
    let seen = seen(records, acknowledged);
    let held = held(&seen, &by_partition(acknowledged), &records[0]);
    (findings(&seen), held)
}

#[test]
fn what_a_goal_allows_is_twice_as_much_and_never_less_than_clients_need() {
    let allows = |kind: Kind| kind.bound().map(allowed).map(|d| d.as_millis());
    assert_eq!(allows(Kind::KillLeader), Some(5_000));
    assert_eq!(allows(Kind::Pause), Some(8_000));
    assert_eq!(allows(Kind::TransferLeaders), Some(3_500));
    assert_eq!(allows(Kind::PowerLossAll), Some(30_000));
    assert_eq!(allows(Kind::DiskFull), None);
}

#[test]
fn a_leader_that_was_killed_must_have_a_successor_soon() {
    let records = [record(0, Kind::KillLeader, 10, 12)];
    let (found, held) = judge(&records, &acks(9_900, 14_900));
    assert_eq!((found.len(), held), (0, 1));
    // Also when the broker had come back long before.
    let (found, held) = judge(&records, &acks(9_900, 15_200));
    assert_eq!((found.len(), held), (1, 1));
    assert!(
        found[0].starts_with("kill-leader 0: partitions [0] took up to 5.2 s"),
        "{found:?}"
    );
    let (found, _) = judge(&records, &acks(9_900, 90_000));
    assert_eq!(found.len(), 1, "it never came back");
}

#[test]
fn what_another_fault_may_have_caused_is_not_held_against_anybody() {
    let slow = acks(9_900, 16_000);
    let kill = || record(0, Kind::KillLeader, 10, 12);
    for (from_s, healed_s) in [(5, 9), (5, 40), (14, 15)] {
        let records = [kill(), record(1, Kind::ClockJump, from_s, healed_s)];
        assert_eq!(
            judge(&records, &slow),
            (Vec::new(), 0),
            "{from_s} {healed_s}"
        );
    }
    let apart = [
        kill(),
        record(1, Kind::ClockJump, 1, 7),
        record(2, Kind::Halves, 20, 30),
    ];
    assert_eq!(judge(&apart, &slow).0.len(), 1);
    let mut broken = kill();
    broken.whole_before = false;
    assert_eq!(judge(&[broken], &slow).1, 0);
    let mut unproven = kill();
    unproven.proven = false;
    assert_eq!(judge(&[unproven], &slow).1, 0);
    // One partition took nothing just before.
    let silent: Vec<Acknowledged> = slow
        .iter()
        .filter(|ack| ack.partition == 0 || ack.at_ns < 7 * SECOND)
        .copied()
        .collect();
    assert_eq!(judge(&[kill()], &silent).1, 0);
}

#[test]
fn clients_that_stopped_show_nothing() {
    let records = [record(0, Kind::KillLeader, 10, 12)];
    let acknowledged = acks(9_900, 16_000);
    let mut seen = seen(&records, &acknowledged);
    seen.until_ns = 13 * SECOND;
    assert_eq!(findings(&seen), [""; 0]);
    seen.until_ns = 15 * SECOND + MS;
    assert_eq!(findings(&seen).len(), 1);
}

#[test]
fn when_all_lost_power_time_counts_from_their_start() {
    let mut all = record(0, Kind::PowerLossAll, 10, 14);
    all.led = vec![0, 1];
    let (found, held) = judge(&[all.clone()], &acks(9_900, 43_000));
    assert_eq!((found.len(), held), (0, 2));
    let (found, _) = judge(&[all], &acks(9_900, 44_500));
    assert!(
        found[0].contains("[0, 1] took up to 30.5 s from its end"),
        "{found:?}"
    );
}

#[test]
fn a_gap_while_leaders_move_counts_as_one() {
    let mut moves = record(0, Kind::TransferLeaders, 10, 20);
    moves.nodes.clear();
    let (found, held) = judge(&[moves.clone()], &acks(12_000, 15_000));
    assert_eq!((found.len(), held), (0, 2));
    let (found, _) = judge(&[moves], &acks(12_000, 16_000));
    assert!(found[0].contains("4.0 s between two"), "{found:?}");
}

#[test]
fn a_broker_that_stays_away_while_all_others_are_whole_is_found() {
    let records = [
        record(0, Kind::KillLeader, 10, 12),
        record(1, Kind::Halves, 50, 60),
    ];
    let acknowledged = acks(9_900, 11_000);
    let judge = |others_whole_s: u64, node: u32, took_ns| {
        let rejoins = [Rejoin {
            number: 0,
            node,
            took_ns,
            others_whole_ns: others_whole_s * SECOND,
        }];
        let seen = Seen {
            rejoins: &rejoins,
            ..seen(&records, &acknowledged)
        };
        findings(&seen).len()
    };
    assert_eq!(judge(40, 2, None), 1);
    assert_eq!(judge(40, 2, Some(SECOND)), 0);
    assert_eq!(judge(20, 2, None), 0, "the others were not whole either");
    assert_eq!(judge(40, 1, None), 0, "it was cut off itself");
}
