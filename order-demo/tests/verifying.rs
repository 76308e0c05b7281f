//! Every planted flaw is found and named; what is legal is not.

mod support;

use highwater_order_demo::journal::Entry;
use highwater_order_demo::money::Cents;
use highwater_order_demo::order::{OrderNumber, Source};
use highwater_order_demo::pricing::price;
use highwater_order_demo::verify::Violation;
use support::{Run, copy, place_of, record};

const COUNT: u64 = 30;

/// Exactly these kinds were found, once each.
fn expect(run: &Run, kinds: &[Violation]) {
    let found = run.verify();
    let counted: Vec<_> = found
        .violations
        .iter()
        .map(|(kind, v)| (*kind, v.count))
        .collect();
    let expected: Vec<_> = kinds.iter().map(|kind| (*kind, 1)).collect();
    assert_eq!(counted, expected, "{:#?}", found.violations);
    assert_eq!(found.passed(), kinds.is_empty());
}

#[test]
fn a_flawless_run_passes_with_the_right_total() {
    let run = Run::flawless(COUNT);
    expect(&run, &[]);
    let found = run.verify();
    let total: i64 = (0..COUNT)
        .map(|n| {
            run.plan
                .account(OrderNumber(n))
                .expect("planned")
                .monthly_charges
                .0
        })
        .sum();
    assert_eq!(found.expected_total_cents, Cents(total));
    assert_eq!(found.priced_total_cents, Cents(total));
    assert_eq!(
        (found.acknowledged, found.priced, found.unknown),
        (COUNT, COUNT, 0)
    );
}

#[test]
fn an_acknowledged_order_that_is_gone_is_lost() {
    let mut run = Run::flawless(COUNT);
    run.intake.remove(11);
    run.events.remove(11);
    expect(&run, &[Violation::Lost]);
}

#[test]
fn an_unknown_order_may_be_there_or_not() {
    for entry in [None, Some(Entry::Unknown(OrderNumber(11)))] {
        let mut run = Run::flawless(COUNT);
        run.fate(11, entry);
        expect(&run, &[]);
        let found = run.verify();
        assert_eq!((found.unknown, found.unknown_present), (1, 1));
        run.intake.remove(11);
        run.events.remove(11);
        expect(&run, &[]);
        let found = run.verify();
        assert_eq!((found.unknown, found.unknown_present), (1, 0));
        assert_eq!(found.acknowledged, COUNT - 1);
    }
}

#[test]
fn a_refused_order_must_not_be_there() {
    let mut run = Run::flawless(COUNT);
    run.fate(11, Some(Entry::Refused(OrderNumber(11))));
    expect(&run, &[Violation::RefusedButPresent]);
    run.intake.remove(11);
    run.events.remove(11);
    expect(&run, &[]);
    assert_eq!(run.verify().refused, 1);
}

#[test]
fn a_second_copy_is_a_duplicate() {
    let mut run = Run::flawless(COUNT);
    let mut again = run.intake[4].clone();
    again.at = place_of(COUNT + 1);
    run.intake.push(again);
    expect(&run, &[Violation::Duplicated]);
}

#[test]
fn an_order_priced_twice_is_a_duplicate() {
    let mut run = Run::flawless(COUNT);
    let mut again = run.events[4].clone();
    again.at = place_of(COUNT + 1);
    run.events.push(again);
    expect(&run, &[Violation::Duplicated]);
}

#[test]
fn what_was_never_sent_is_a_phantom() {
    let mut run = Run::flawless(COUNT);
    let at = place_of(COUNT);
    let mut stranger = run.intake[3].clone();
    stranger.at = at;
    stranger.value = b"{}".to_vec();
    run.intake.push(stranger);
    expect(&run, &[Violation::Phantom]);

    // Planned, and the journal says that it never came to that.
    let mut run = Run::flawless(COUNT);
    run.journal[0] = Entry::Intended {
        from: OrderNumber(0),
        to: OrderNumber(COUNT - 1),
    };
    run.fate(COUNT - 1, None);
    // Its priced event has no cause then either.
    let found = run.verify();
    assert_eq!(
        found.count(Violation::Phantom),
        2,
        "{:#?}",
        found.violations
    );
}

#[test]
fn an_order_elsewhere_than_acknowledged_is_misplaced() {
    let mut run = Run::flawless(COUNT);
    let elsewhere = Source {
        partition: 2,
        offset: 77,
    };
    run.fate(11, Some(Entry::Acknowledged(OrderNumber(11), elsewhere)));
    expect(&run, &[Violation::Misplaced]);
}

#[test]
fn swapped_orders_of_a_partition_are_out_of_order() {
    let mut run = Run::flawless(COUNT);
    // Orders 3 and 6 share a partition; everything else about them agrees.
    for (number, at) in [(3_u64, place_of(6)), (6, place_of(3))] {
        let event = run.placed(number);
        let slot = usize::try_from(at.offset * 3 + u64::from(at.partition)).expect("small");
        run.fate(number, Some(Entry::Acknowledged(OrderNumber(number), at)));
        run.intake[slot] = record(at, &event.order_id, &event);
        let priced = price(&event, at);
        run.events[slot] = record(at, &priced.order_id, &priced);
    }
    run.replicas.clear();
    expect(&run, &[Violation::OutOfOrder]);
}

#[test]
fn priced_events_that_overtake_are_out_of_order() {
    let mut run = Run::flawless(COUNT);
    let (first, second) = (run.events[3].clone(), run.events[6].clone());
    run.events[3] = highwater_order_demo::evidence::Observed {
        at: first.at,
        ..second.clone()
    };
    run.events[6] = highwater_order_demo::evidence::Observed {
        at: second.at,
        ..first
    };
    expect(&run, &[Violation::OutOfOrder]);
    // A wrong place in the order's own sequence is one as well.
    let mut run = Run::flawless(COUNT);
    let mut event = run.priced(5);
    event.sequence = 3;
    run.set_priced(5, &event);
    expect(&run, &[Violation::OutOfOrder]);
}

#[test]
fn partitions_may_be_read_in_any_interleaving() {
    let mut run = Run::flawless(COUNT);
    run.intake.sort_by_key(|record| record.at);
    run.events
        .sort_by_key(|record| std::cmp::Reverse(record.at.partition));
    expect(&run, &[]);
}

#[test]
fn an_altered_order_is_found() {
    let mut run = Run::flawless(COUNT);
    let mut event = run.placed(8);
    event.body.contract = "For ever".to_owned();
    run.intake[8] = record(place_of(8), &event.order_id, &event);
    expect(&run, &[Violation::Altered]);
    // Late by its own clock is not altered.
    let mut event = run.placed(8);
    event.intended_start_ms += 5;
    run.intake[8] = record(place_of(8), &event.order_id, &event);
    expect(&run, &[]);
}

#[test]
fn every_kind_of_wrong_price_is_found() {
    let breakages: [fn(&mut highwater_order_demo::order::Priced); 5] = [
        |priced| priced.total_cents = priced.total_cents + Cents(1),
        |priced| priced.lines[0].amount_cents = priced.lines[0].amount_cents + Cents(1),
        |priced| {
            priced.lines.remove(0);
        },
        |priced| {
            // The sum is right, two lines are not.
            priced.lines[0].amount_cents = priced.lines[0].amount_cents + Cents(1);
            priced.lines[1].amount_cents = priced.lines[1].amount_cents - Cents(1);
        },
        |priced| {
            let half = highwater_order_demo::order::Line {
                sku: None,
                amount_cents: Cents(0),
            };
            priced.lines.extend([half, half]);
        },
    ];
    for (which, breakage) in breakages.into_iter().enumerate() {
        let mut run = Run::flawless(COUNT);
        // An order with several items.
        let place = (0..5)
            .max_by_key(|at| run.priced(*at).body.lines.len())
            .expect("some");
        let mut event = run.priced(place);
        breakage(&mut event.body);
        run.set_priced(place, &event);
        let found = run.verify();
        assert_eq!(found.count(Violation::PriceMismatch), 1, "breakage {which}");
        let totals_agree = found.priced_total_cents == found.expected_total_cents;
        assert_eq!(totals_agree, which != 0, "breakage {which}");
    }
}

#[test]
fn an_order_without_a_price_is_found() {
    let mut run = Run::flawless(COUNT);
    run.events.remove(9);
    expect(&run, &[Violation::Unpriced]);
}

#[test]
fn a_priced_event_must_name_its_cause() {
    let mut run = Run::flawless(COUNT);
    let mut event = run.priced(9);
    event.causation_id = None;
    run.set_priced(9, &event);
    expect(&run, &[Violation::Altered]);
}

#[test]
fn replicas_that_differ_are_found() {
    let mut run = Run::flawless(COUNT);
    run.intake[0].value.push(b' ');
    run.replicas[2] = copy(3, 0, &run.intake);
    expect(&run, &[Violation::ReplicasDiffer]);
    // One record fewer differs too.
    let mut run = Run::flawless(COUNT);
    let shorter: Vec<_> = run.intake[..25].to_vec();
    run.replicas[1] = copy(2, 0, &shorter);
    expect(&run, &[Violation::ReplicasDiffer]);
}
