//! What counts as recovered, and the longest silence.

use serde_json::Value as Json;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn record(kind: Kind, led: &[u32]) -> Record {
    Record {
        number: 3,
        kind,
        from_ns: 10 * SECOND,
        healed_ns: 20 * SECOND,
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

#[test]
fn only_records_sent_since_the_fault_show_that_it_is_over() {
    let acks = [
        ack(0, 9, 11), // sent before
        ack(0, 12, 13),
        ack(1, 9, 11),
        ack(1, 15, 24), // answered only after the end
        ack(2, 12, 12), // not led by the broker that was hit
    ];
    let found = samples(
        &[record(Kind::KillLeader, &[0, 1, 4])],
        &acks,
        &[(3, SECOND), (9, 1)],
        5,
    );
    assert_eq!(found[0].under_fault, [3.0]);
    assert_eq!(found[0].after_heal, [4.0]);
    assert_eq!(found[0].never, 1);
    assert_eq!(found[0].rejoined, [1.0]);
}

#[test]
fn transfers_are_measured_by_the_longest_gap() {
    let acks = [ack(0, 11, 12), ack(0, 13, 17), ack(0, 18, 19)];
    let found = samples(&[record(Kind::TransferLeaders, &[])], &acks, &[], 1);
    assert_eq!(found[0].gaps, [5.0]);
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
    let found = samples(&[fault], &acks, &[], 2);
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
    let found = samples(&[record(Kind::Pause, &[0])], &[ack(0, 11, 12)], &[], 1);
    assert!(by_kind(&found).contains("pause"));
    let text = beside_others(&found);
    assert!(text.contains("leader paused or cut off") && text.contains("2.00 / 2.00 / 2.00"));
}
