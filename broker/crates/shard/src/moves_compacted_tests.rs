//! A partition that is compacted goes to another shard: what is copied is of one state, and what was decided
//! about it goes on where it arrives.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use super::tests::{PLAN, Pair, step};
use super::*;
use crate::test_support::{compact, compacted, tp};
use crate::{CompactionFacts, RejectReason, ShardCommand, Verdict};

/// Ten batches of two records, two batches to a segment: the last one begins at 16.
fn filled() -> Pair {
    let mut pair = Pair::with(PartitionConfig::default());
    let (tp, config) = (tp(0), compacted());
    pair.from
        .apply(ShardCommand::ConfigurePartition { tp, config });
    for sequence in 0..10 {
        pair.send((1, 0, 2 * sequence), 2);
    }
    pair
}

fn facts(state: &ShardState) -> Option<CompactionFacts> {
    state.partition(tp(0))?.compaction
}

fn phase(pair: &Pair) -> Phase {
    let facts = pair.from.state.partition(tp(0));
    facts.expect("there").phase
}

/// What the first compaction leaves of the copied batches: the first, the fourth and all from the fifth on.
fn left(pair: &mut Pair) {
    let stored = std::mem::take(&mut pair.stored);
    let kept = stored.into_iter().enumerate();
    pair.stored = kept
        .filter(|(at, _)| ![1, 2].contains(at))
        .map(|(_, batch)| batch)
        .collect();
}

#[test]
fn what_is_held_is_written_and_not_compacted() {
    let mut pair = filled();
    assert_eq!(pair.from.apply(compact(8, 0)).0, ShardReply::Done);
    let (reply, effects) = pair.from.apply(step(PLAN, MoveStep::Hold));
    let held = Effect::Held {
        tp: tp(0),
        plan: PLAN,
    };
    assert_eq!((reply, effects), (ShardReply::Done, vec![held]));
    assert_eq!(phase(&pair), Phase::Held { plan: PLAN });
    let decided = facts(&pair.from.state);
    assert_eq!(
        pair.from.apply(compact(12, 0)).0,
        ShardReply::Refused(CommandRefusal::Moving)
    );
    assert_eq!(facts(&pair.from.state), decided);
    assert!(matches!(pair.send((1, 0, 20), 1), Verdict::Appended { .. }));
    let trim = ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(2),
        config_version: None,
    };
    let trimmed = ShardReply::Trimmed {
        log_start: Offset(2),
    };
    assert_eq!(pair.from.apply(trim).0, trimmed);
    pair.from.restart();
    assert_eq!(
        pair.from.apply(step(PLAN, MoveStep::Hold)),
        (ShardReply::Done, vec![]),
        "again"
    );

    // Given up it is compacted again.
    assert_eq!(
        pair.from.apply(step(PLAN - 1, MoveStep::Release)),
        (ShardReply::Done, vec![])
    );
    assert_eq!(phase(&pair), Phase::Held { plan: PLAN }, "of another plan");
    pair.from.apply(step(PLAN, MoveStep::Release));
    assert_eq!(phase(&pair), Phase::Serving);
    assert_eq!(pair.from.apply(compact(12, 0)).0, ShardReply::Done);
}

#[test]
fn what_was_compacted_is_fenced_only_by_the_plan_that_holds_it() {
    let mut pair = filled();
    pair.from.apply(compact(8, 0));
    assert_eq!(
        pair.from.apply(step(PLAN, MoveStep::Fence)),
        (OTHER, vec![]),
        "not held"
    );
    pair.from.apply(step(PLAN, MoveStep::Hold));
    assert_eq!(
        pair.from.apply(step(PLAN + 1, MoveStep::Fence)),
        (OTHER, vec![])
    );
    assert_eq!(
        pair.from.apply(step(PLAN - 1, MoveStep::Hold)),
        (OTHER, vec![]),
        "an old plan"
    );
    pair.from.apply(step(PLAN + 1, MoveStep::Hold));
    assert_eq!(
        phase(&pair),
        Phase::Held { plan: PLAN + 1 },
        "the one before was given up"
    );
    assert_eq!(
        pair.from.apply(step(PLAN, MoveStep::Fence)),
        (OTHER, vec![])
    );
    pair.fence(PLAN + 1);
    assert_eq!(
        pair.from.apply(step(PLAN + 1, MoveStep::Hold)),
        (ShardReply::Done, vec![])
    );
    assert_eq!(
        phase(&pair),
        Phase::Fenced { plan: PLAN + 1 },
        "late, it changes nothing"
    );
    assert_eq!(
        pair.send((1, 0, 20), 1),
        Verdict::Rejected(RejectReason::Moving)
    );
    // That one was given up, too.
    pair.from.apply(step(PLAN + 2, MoveStep::Hold));
    assert_eq!(phase(&pair), Phase::Held { plan: PLAN + 2 });
    assert!(matches!(pair.send((1, 0, 20), 1), Verdict::Appended { .. }));
}

#[test]
fn what_was_decided_counts_where_it_arrives() {
    let mut pair = filled();
    pair.from.apply(compact(8, 5_000));
    let before = facts(&pair.from.state).expect("decided");
    left(&mut pair);
    pair.from.apply(step(PLAN, MoveStep::Hold));
    pair.carry_over(PLAN);
    let after = facts(&pair.to.state).expect("arrived");
    let generation = pair.to.position;
    assert_eq!(
        after,
        CompactionFacts {
            generation,
            ..before
        },
        "by its own log"
    );
    pair.to.restart();
    assert_eq!(
        pair.to.send((1, 0, 18), 2),
        Verdict::Duplicate {
            base_offset: Offset(18)
        }
    );

    // Records without value below 8 have been kept for a second since the first compaction, not since the
    // arrival; those below 12 have not.
    assert_eq!(pair.to.apply(compact(12, 5_999)).0, ShardReply::Done);
    assert_eq!(
        facts(&pair.to.state).expect("decided").tombstones_below,
        Offset(0)
    );
    assert_eq!(pair.to.apply(compact(16, 6_000)).0, ShardReply::Done);
    assert_eq!(
        facts(&pair.to.state).expect("decided").tombstones_below,
        Offset(8)
    );
}

#[test]
fn of_a_log_that_begins_behind_its_compaction_nothing_is_to_be_done() {
    let mut pair = filled();
    pair.from.apply(compact(8, 0));
    pair.from.apply(ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(8),
        config_version: None,
    });
    pair.stored.drain(..4);
    pair.from.apply(step(PLAN, MoveStep::Hold));
    pair.carry_over(PLAN);
    assert_eq!(facts(&pair.to.state), None);
    let moved = pair.to.state.partition(tp(0)).expect("there");
    assert_eq!(
        (moved.log_start, moved.next_offset),
        (Offset(8), Offset(20))
    );
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::CopiesUnheld,
        "moves::compacted_tests::what_is_held_is_written_and_not_compacted",
    );
}

#[test]
fn below_its_level_nothing_is_held() {
    let mut pair = filled();
    pair.from.state.rules = FeatureLevel::MOVES;
    assert_eq!(pair.from.apply(step(PLAN, MoveStep::Hold)), (OTHER, vec![]));
    assert_eq!(phase(&pair), Phase::Serving);
    pair.fence(PLAN);
}
