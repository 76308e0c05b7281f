//! The shard's clock: jumps of wall clocks do not age anything by much.

use super::*;

fn observe(clock: &mut ShardClock, times: &[i64]) -> u64 {
    times
        .iter()
        .map(|time| clock.observe(TimestampMs(*time)))
        .last()
        .unwrap_or_default()
}

const STEP: i64 = LONGEST_STEP_MS as i64;

#[test]
fn steady_time_is_counted_as_it_is() {
    let mut clock = ShardClock::default();
    assert_eq!(observe(&mut clock, &[5000, 5001, 5001, 7000]), 2000);
}

#[test]
fn batches_that_overtake_each_other_are_not_counted_twice() {
    let mut clock = ShardClock::default();
    assert_eq!(observe(&mut clock, &[100, 103, 101, 104, 102, 105]), 5);
}

#[test]
fn a_jump_ahead_counts_for_one_step_and_time_goes_on_from_there() {
    let mut clock = ShardClock::default();
    let tomorrow = 24 * 3_600_000;
    assert_eq!(
        observe(&mut clock, &[0, tomorrow, tomorrow + 10]),
        LONGEST_STEP_MS + 10
    );
}

#[test]
fn a_jump_back_counts_for_nothing_and_time_goes_on_from_there() {
    let mut clock = ShardClock::default();
    let start = 24 * 3_600_000;
    assert_eq!(observe(&mut clock, &[start, start + 10, 0, 10]), 20);
}

#[test]
fn leaders_whose_clocks_differ_a_little_do_not_speed_it_up() {
    let mut clock = ShardClock::default();
    let times: Vec<i64> = (0..100).flat_map(|n| [n, n + STEP / 2]).collect();
    assert_eq!(observe(&mut clock, &times), LONGEST_STEP_MS / 2 + 99);
}

#[test]
fn the_ends_of_time_do_not_overflow() {
    let mut clock = ShardClock::default();
    let times = [i64::MIN, i64::MAX, i64::MIN, i64::MAX];
    assert_eq!(observe(&mut clock, &times), 2 * LONGEST_STEP_MS);
}
