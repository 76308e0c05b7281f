//! The producer rules one by one; `model_tests` tries them all together.

use super::*;

const FREE: ProducerLimits = ProducerLimits {
    expiry_ms: 0,
    most: 0,
};
const DUPLICATE: Check = Check::Reject(RejectReason::DuplicateSequence);
const OUT_OF_ORDER: Check = Check::Reject(RejectReason::OutOfOrderSequence);

fn produced(id: u64, epoch: u16, sequence: u32, records: u32) -> ProducedBatch {
    ProducedBatch {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        sequence,
        records,
    }
}

/// Sends batches of producer 1, epoch 0, each with the next sequence; offsets are their number.
fn after(records: &[u32]) -> (Producers, u32) {
    let mut producers = Producers::default();
    let mut sequence = 0;
    for (offset, records) in (0..).zip(records) {
        let batch = produced(1, 0, sequence, *records);
        assert_eq!(producers.check(&batch, 0, FREE), Check::Next);
        producers.record(&batch, Offset(offset), 0, FREE);
        sequence = (batch.last_sequence() + 1) & SEQUENCE_MASK;
    }
    (producers, sequence)
}

#[test]
fn the_last_five_come_back_with_their_offsets_and_nothing_older() {
    let (producers, next) = after(&[2; 7]);
    for n in 0..7 {
        let retry = produced(1, 0, n * 2, 2);
        let expected = match n {
            0 | 1 => DUPLICATE,
            _ => Check::Duplicate(Offset(u64::from(n))),
        };
        assert_eq!(producers.check(&retry, 0, FREE), expected, "batch {n}");
    }
    assert_eq!(
        producers.check(&produced(1, 0, next, 1), 0, FREE),
        Check::Next
    );
    assert_eq!(
        producers.check(&produced(1, 0, next + 1, 1), 0, FREE),
        OUT_OF_ORDER
    );
}

#[test]
fn the_sequence_of_a_remembered_batch_with_another_count_is_no_retry() {
    let (producers, _) = after(&[3, 3]);
    for (sequence, records) in [(0, 2), (0, 4), (0, 6), (3, 1), (1, 2), (5, 3)] {
        let check = producers.check(&produced(1, 0, sequence, records), 0, FREE);
        assert_eq!(check, OUT_OF_ORDER, "{sequence} + {records}");
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let half = 1 << 30;
    // The last batch ends at the last sequence there is.
    let (producers, next) = after(&[half - 1, half, 1]);
    assert_eq!(next, 0);
    assert_eq!(producers.check(&produced(1, 0, 0, 5), 0, FREE), Check::Next);
    let last = produced(1, 0, SEQUENCE_MASK, 1);
    assert_eq!(producers.check(&last, 0, FREE), Check::Duplicate(Offset(2)));
    assert_eq!(
        producers.check(&produced(1, 0, 1, 1), 0, FREE),
        OUT_OF_ORDER
    );
    // And one lies across the end.
    let (producers, next) = after(&[half, half - 2, 5, 10]);
    assert_eq!(next, 13);
    let across = produced(1, 0, SEQUENCE_MASK - 1, 5);
    assert_eq!(
        producers.check(&across, 0, FREE),
        Check::Duplicate(Offset(2))
    );
    assert_eq!(
        producers.check(&produced(1, 0, 3, 10), 0, FREE),
        Check::Duplicate(Offset(3))
    );
    assert_eq!(
        producers.check(&produced(1, 0, 0, 3), 0, FREE),
        OUT_OF_ORDER
    );
    // What came before the wrap is behind, not ahead.
    let (mut producers, mut next) = after(&[half, half - 3]);
    for offset in 0..6 {
        let batch = produced(1, 0, next, 2);
        assert_eq!(producers.check(&batch, 0, FREE), Check::Next);
        producers.record(&batch, Offset(10 + offset), 0, FREE);
        next = (batch.last_sequence() + 1) & SEQUENCE_MASK;
    }
    assert_eq!(
        producers.check(&produced(1, 0, SEQUENCE_MASK - 2, 2), 0, FREE),
        DUPLICATE
    );
}

#[test]
fn an_unknown_producer_begins_at_zero() {
    let producers = Producers::default();
    let unknown = Check::Reject(RejectReason::UnknownProducer);
    assert_eq!(producers.check(&produced(1, 0, 1, 1), 0, FREE), unknown);
    assert_eq!(producers.check(&produced(1, 0, 0, 1), 0, FREE), Check::Next);
    assert_eq!(producers.check(&produced(1, 9, 0, 1), 0, FREE), Check::Next);
}

#[test]
fn a_new_epoch_begins_at_zero_forgets_the_old_batches_and_fences() {
    let (mut producers, _) = after(&[1, 1]);
    assert_eq!(
        producers.check(&produced(1, 1, 2, 1), 0, FREE),
        OUT_OF_ORDER
    );
    let first = produced(1, 1, 0, 1);
    assert_eq!(producers.check(&first, 0, FREE), Check::Next);
    producers.record(&first, Offset(9), 0, FREE);
    assert_eq!(
        producers.check(&first, 0, FREE),
        Check::Duplicate(Offset(9))
    );
    for sequence in 0..4 {
        let fenced = Check::Reject(RejectReason::ProducerFenced);
        assert_eq!(
            producers.check(&produced(1, 0, sequence, 1), 0, FREE),
            fenced
        );
    }
    assert_eq!(producers.check(&produced(1, 1, 1, 1), 0, FREE), Check::Next);
}

#[test]
fn a_producer_that_is_silent_for_too_long_is_forgotten() {
    let limits = ProducerLimits {
        expiry_ms: 100,
        most: 0,
    };
    let mut producers = Producers::default();
    producers.record(&produced(1, 3, 0, 1), Offset(0), 1000, limits);
    producers.record(&produced(2, 0, 0, 1), Offset(1), 1050, limits);
    let (retry, next) = (produced(1, 3, 0, 1), produced(1, 3, 1, 1));
    assert_eq!(
        producers.check(&retry, 1099, limits),
        Check::Duplicate(Offset(0))
    );
    assert_eq!(producers.check(&next, 1099, limits), Check::Next);
    // Whether it was swept or not makes no difference.
    for _ in 0..2 {
        let unknown = Check::Reject(RejectReason::UnknownProducer);
        assert_eq!(producers.check(&next, 1100, limits), unknown);
        assert_eq!(
            producers.check(&produced(1, 0, 0, 4), 1100, limits),
            Check::Next
        );
        producers.forget_expired(1100, limits);
    }
    assert_eq!(producers.as_slice().len(), 1);
    assert!(!producers.has_expired(1100, limits));
}

#[test]
fn beyond_the_cap_the_one_that_appended_longest_ago_goes() {
    let limits = ProducerLimits {
        expiry_ms: 0,
        most: 3,
    };
    let mut producers = Producers::default();
    for (offset, id) in (0..).zip([5, 1, 9]) {
        producers.record(&produced(id, 0, 0, 1), Offset(offset), 0, limits);
    }
    producers.record(&produced(5, 0, 1, 1), Offset(3), 0, limits);
    producers.record(&produced(7, 0, 0, 1), Offset(4), 0, limits);
    let ids: Vec<u64> = producers
        .as_slice()
        .iter()
        .map(|producer| producer.id.0)
        .collect();
    assert_eq!(ids, [5, 7, 9]);
}

#[test]
fn a_cap_that_was_lowered_is_reached_with_the_next_new_producer() {
    let (mut producers, limits) = (
        Producers::default(),
        ProducerLimits {
            expiry_ms: 0,
            most: 2,
        },
    );
    for id in 0..10 {
        producers.record(&produced(id, 0, 0, 1), Offset(id), 0, FREE);
    }
    producers.record(&produced(10, 0, 0, 1), Offset(10), 0, limits);
    let ids: Vec<u64> = producers
        .as_slice()
        .iter()
        .map(|producer| producer.id.0)
        .collect();
    assert_eq!(ids, [9, 10]);
}

#[test]
fn a_producer_takes_little_memory() {
    assert!(size_of::<Producer>() <= 88, "{}", size_of::<Producer>());
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::IgnoresEpoch,
        "producer::tests::a_new_epoch_begins_at_zero_forgets_the_old_batches_and_fences",
    );
}
