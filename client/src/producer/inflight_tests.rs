//! Tests of one partition's queue.

use highwater_proto::{NodeId, Offset};

use super::*;
use crate::error::{Cause, ErrorCode};

fn queue(batches: u64, records: u32) -> Queue<u64> {
    let mut queue = Queue::new();
    for id in 0..batches {
        queue.slots.push_back(Slot {
            id,
            body: Some(id),
            records,
            deadline: Duration::from_secs(30),
            sequence: None,
            state: State::Waiting,
            maybe_written: false,
            last: None,
        });
    }
    queue
}

#[test]
fn sequences_count_records_and_wrap() {
    let mut queue = queue(3, 1 << 30);
    let sequences: Vec<_> = (0..3)
        .map(|index| queue.mark_sent(index, 0, 0, NodeId(1)).unwrap())
        .collect();
    assert_eq!(sequences, [0, 1 << 30, 0]);
}

#[test]
fn what_was_given_back_goes_again_in_order_after_all_came_back() {
    let mut queue = queue(3, 1);
    queue.mark_sent(0, 0, 1, NodeId(1));
    queue.mark_sent(1, 1, 2, NodeId(1));
    assert!(queue.give_back(1));
    assert_eq!(
        queue.next_to_send(Duration::ZERO, false),
        None,
        "the second is still out"
    );
    assert!(queue.give_back(2));
    assert_eq!(queue.next_to_send(Duration::ZERO, false), Some(0));
    assert_eq!(
        queue.mark_sent(0, 2, 3, NodeId(1)),
        Some(0),
        "under its old number"
    );
    assert!(queue.slots[0].maybe_written && queue.undecided());
}

#[test]
fn an_unsent_batch_expires_as_rejected_and_a_sent_one_as_unknown() {
    let mut queue = queue(2, 1);
    queue.mark_sent(0, 0, 1, NodeId(1));
    let mut done = Vec::new();
    assert!(
        queue.expire(Duration::from_secs(31), &mut done),
        "the numbers have a hole"
    );
    assert!(matches!(
        done[..],
        [(0, Outcome::Unknown(_)), (1, Outcome::Rejected(_))]
    ));
    assert!(queue.slots.is_empty());
    let late = Outcome::Acknowledged {
        base_offset: Offset(0),
        append_time: None,
        duplicate: false,
    };
    queue.acknowledged(0, late, &mut done);
    assert_eq!(done.len(), 2, "an outcome is final");
}

#[test]
fn a_batch_whose_numbers_were_used_before_is_not_said_to_be_absent() {
    for certain in [true, false] {
        let mut queue = queue(1, 1);
        queue.mark_sent(0, 7, 1, NodeId(1)).expect("sent");
        let cause = Cause::Deadline("its numbers were used before".to_owned());
        let refusal = Refusal::of_code(ErrorCode::DuplicateSequence, certain, cause);
        let mut done = Vec::new();
        let effect = queue
            .refused((0, 7), refusal, &mut done)
            .expect("its attempt");
        assert!(effect.gap && !effect.again, "no attempt can succeed");
        assert!(matches!(done.as_slice(), [(_, Outcome::Unknown(_))]));
    }
}
