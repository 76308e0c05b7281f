//! What brokers say is kept until they say something else.

use super::*;

#[test]
fn a_plan_is_followed_when_the_broker_has_said_so_of_it_or_of_a_later_one() {
    let reports = Reports::default();
    let says = |node_id, followed_plan| HeartbeatRequest {
        node_id,
        followed_plan,
        ..HeartbeatRequest::default()
    };
    assert!(!reports.has_followed(NodeId(1), 1), "never heard of");
    reports.note(says(1, 6));
    reports.note(says(2, 8));
    assert!(!reports.has_followed(NodeId(1), 7));
    assert!(reports.has_followed(NodeId(2), 7));
    // A process that has just started has followed nothing yet, whatever the one before it had.
    reports.note(says(2, 0));
    assert!(!reports.has_followed(NodeId(2), 7));
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::CountsTheOldReplica,
        "control::reports::tests::a_plan_is_followed_when_the_broker_has_said_so_of_it_or_of_a_later_one",
    );
}
