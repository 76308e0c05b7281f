//! Each rule of elections is seen to be broken, and elections that keep them are not.

use super::Leaders;

#[test]
fn elections_that_keep_the_rules_pass() {
    let mut leaders = Leaders::default();
    for (node, group, term, leader) in [
        ("n1", 1, 1, 1),
        ("n2", 1, 1, 1),
        ("n2", 1, 3, 2),
        ("n1", 1, 3, 2),
        // Another group counts its own terms; one that was away hears of the newest leader alone.
        ("n1", 2, 1, 3),
        ("n3", 1, 3, 2),
        ("n3", 1, 3, 2),
    ] {
        leaders.heard(node, group, term, leader);
    }
    assert_eq!(leaders.broken(), None);
}

#[test]
fn two_leaders_in_one_term_are_seen() {
    let mut leaders = Leaders::default();
    leaders.heard("n1", 1, 4, 1);
    leaders.heard("n2", 1, 4, 2);
    let broken = leaders.broken().unwrap_or_default();
    assert!(broken.contains("two leaders in term 4"), "{broken}");
}

#[test]
fn a_term_that_is_forgotten_is_seen() {
    let mut leaders = Leaders::default();
    leaders.heard("n1", 1, 4, 1);
    leaders.heard("n2", 1, 5, 2);
    leaders.heard("n2", 1, 4, 1);
    let broken = leaders.broken().unwrap_or_default();
    assert!(broken.contains("it knew of term 5"), "{broken}");
}

#[test]
fn a_start_without_the_last_term_is_seen() {
    let mut leaders = Leaders::default();
    leaders.heard("n1", 1, 4, 1);
    leaders.heard("n1", 2, 6, 1);
    leaders.recovered("n1", 1, 4);
    leaders.recovered("n2", 1, 0);
    leaders.forgotten("n1", 2);
    leaders.recovered("n1", 2, 0);
    assert_eq!(leaders.broken(), None);
    leaders.recovered("n1", 1, 3);
    let broken = leaders.broken().unwrap_or_default();
    assert!(broken.contains("starts group 1 with term 3"), "{broken}");
}

#[test]
fn a_wiped_disk_may_forget_but_not_take_part_uninvited() {
    let mut leaders = Leaders::default();
    leaders.heard("n1", 1, 5, 2);
    leaders.wiped("n1");
    leaders.let_in("n1");
    leaders.heard("n1", 1, 4, 3);
    assert_eq!(leaders.broken(), None);
    leaders.wiped("n1");
    leaders.heard("n1", 1, 6, 3);
    let broken = leaders.broken().unwrap_or_default();
    assert!(broken.contains("nobody let it in"), "{broken}");
}
