//! Known-bad variants of the log fail its tests.

use highwater_mutant::{Mutant, fails};

#[test]
fn entries_acknowledged_before_their_sync_are_missed() {
    fails(
        Mutant::AckBeforeFsync,
        "crash::every_crash_point_keeps_what_was_acknowledged",
    );
}

#[test]
fn a_vote_lost_in_recycling_is_missed() {
    fails(
        Mutant::RecycleDropsVote,
        "basics::an_idle_vote_and_entries_that_are_never_purged_survive_recycling_and_pin_nothing",
    );
}

#[test]
fn a_sync_that_is_tried_again_is_missed() {
    fails(
        Mutant::RetryFsync,
        "errors::a_failed_sync_is_never_retried_and_says_what_failed",
    );
}

#[test]
fn damage_that_is_cut_off_in_silence_is_missed() {
    fails(
        Mutant::TruncatesDamage,
        "damage::a_flipped_bit_below_a_known_durable_position_is_named",
    );
}
