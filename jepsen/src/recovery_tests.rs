//! What counts as recovered, and the longest silence.

use serde_json::Value as Json;

use super::*;
use crate::schedule::Kind;

const SECOND: u64 = 1_000_000_000;

fn record(kind: Kind, led: &[u32]) -> Record {
    Record {
        number: 3,
        kind,
        from_ns: 10 * SECOND,
        healed_ns: 20 * SECOND,
        asked_ns: 10 * SECOND,
        whole_before: true,
        nodes: vec![1],
        led: led.to_vec(),
        proven: true,
        proof: Json::Null,
        begun: true,
        finding: None,
    }
}

fn ack(partition: u32, invoked: u64, at: u64) -> Acknowledged {
    Acknowledged {
        partition,
        offset: 0,
        invoked_ns: invoked * SECOND,
        at_ns: at * SECOND,
    }
}

fn seen<'a>(records: &'a [Record], acknowledged: &'a [Acknowledged]) -> Seen<'a> {
    Seen {
        records,
        acknowledged,
        rejoins: &[],
        partitions: 5,
        until_ns: 60 * SECOND,
    }
}

#[test]
fn only_records_sent_since_the_fault_show_that_it_is_over() {
    let acks = [
        ack(0, 9, 11), // sent before
        ack(0, 12, 13),
        ack(1, 9, 11),
        ack(1, 15, 24), // answered only after the end
        ack(2, 12, 12), // not led by the broker that was hit
    ];
    let back = |number, took_ns| Rejoin {
        number,
        node: 1,
        took_ns,
        others_whole_ns: 0,
    };
    let rejoins = [back(3, Some(SECOND)), back(9, Some(1)), back(3, None)];
    let records = [record(Kind::KillMajority, &[0, 1, 4])];
    let found = samples(&Seen {
        rejoins: &rejoins,
        ..seen(&records, &acks)
    });
    assert_eq!(found[0].under_fault, [3.0]);
    assert_eq!(found[0].after_heal, [4.0]);
    assert_eq!(found[0].never, 1);
    assert_eq!(
        (&found[0].rejoined[..], found[0].never_rejoined),
        (&[1.0][..], 1)
    );
}

#[test]
fn where_a_majority_is_whole_the_end_of_the_fault_is_no_new_beginning() {
    let acks = [ack(0, 12, 13), ack(1, 9, 21), ack(1, 15, 24)];
    let records = [record(Kind::KillLeader, &[0, 1, 4])];
    let found = samples(&seen(&records, &acks));
    assert_eq!(found[0].under_fault, [3.0, 14.0]);
    assert_eq!(found[0].after_heal, [0.0; 0]);
    assert_eq!(found[0].never, 1);
}

#[test]
fn brokers_that_led_nothing_cost_no_partition_anything() {
    let acks = [ack(0, 12, 19)];
    let records = [record(Kind::KillFollower, &[])];
    let found = samples(&seen(&records, &acks));
    assert_eq!(found[0].under_fault, [0.0; 0]);
    assert_eq!(found[0].never, 0);
}

#[test]
fn transfers_are_measured_by_the_longest_gap() {
    let acks = [ack(0, 11, 12), ack(0, 13, 17), ack(0, 18, 19)];
    let mut all = record(Kind::TransferLeaders, &[]);
    all.nodes.clear();
    let records = [all];
    let mut seen = seen(&records, &acks);
    seen.partitions = 1;
    assert_eq!(samples(&seen)[0].gaps, [5.0]);
    // Nobody sent anything any more.
    seen.until_ns = 14 * SECOND;
    assert_eq!(samples(&seen)[0].gaps, [2.0]);
}

#[test]
fn a_silence_may_begin_before_a_fault_and_end_after_it() {
    let fault = record(Kind::StalledFsync, &[0]);
    let acks = [
        ack(0, 1, 2),
        ack(0, 7, 8),
        ack(0, 13, 14),
        ack(0, 22, 25),
        ack(0, 60, 61),
    ];
    assert_eq!(silence(&fault, &acks), 11 * SECOND);
    assert_eq!(silence(&fault, &acks[..3]), 6 * SECOND);
    assert_eq!(silence(&fault, &[]), 10 * SECOND);
    let records = [fault];
    let found = samples(&Seen {
        partitions: 2,
        ..seen(&records, &acks)
    });
    assert_eq!(found[0].silence, [11.0, 10.0]);
    assert!(availability(&found).contains("stalled-fsync"));
}

#[test]
fn percentiles_are_values_that_occurred() {
    let values = [4.0, 1.0, 3.0, 2.0];
    assert_eq!(percentile(&values, 50), Some(2.0));
    assert_eq!(percentile(&values, 99), Some(4.0));
    assert_eq!(percentile(&[], 50), None);
}

#[test]
fn tables_name_every_event_and_kind() {
    let records = [record(Kind::Pause, &[0])];
    let found = samples(&seen(&records, &[ack(0, 11, 12)]));
    assert!(by_kind(&found).contains("pause"));
    let text = beside_others(&found);
    assert!(text.contains("leader paused") && text.contains("2.00 / 2.00 / 2.00"));
}
