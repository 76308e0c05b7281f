//! Invariant 3: the events of an order are numbered without gaps, each stage follows one that it
//! may follow, and no group's committed offset passes a message that it has not handled.

use super::{ByOrder, Evidence, Verdict, Violation};
use crate::domain::message::Body;
use crate::domain::state::{OrderState, Stage};

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    out.looked_at(3, evidence.events.len());
    for (order, events) in orders {
        let mut expected = 1;
        let mut before: Option<OrderState> = None;
        let mut way: Option<Stage> = None;
        for message in events {
            let Body::Event(event) = &message.body else {
                continue;
            };
            let sequence = message.sequence;
            if sequence < expected {
                out.add(Violation::Duplicated, || {
                    format!("{order}: event {sequence} is there again")
                });
                continue;
            }
            if sequence > expected {
                out.add(Violation::OutOfOrder, || {
                    format!("{order}: event {sequence} comes where {expected} should")
                });
            }
            expected = sequence + 1;
            let legal = match before {
                None => matches!(event.state, OrderState::Acknowledged | OrderState::Rejected),
                Some(before) => before.may_become(event.state),
            };
            let forward = follows(way, event.stage);
            if !legal || !forward {
                out.add(Violation::IllegalState, || {
                    format!(
                        "{order}: event {sequence}, {:?} ({:?}), after {way:?} ({before:?})",
                        event.stage, event.state
                    )
                });
            }
            before = Some(event.state);
            if !aside(event.stage) {
                way = Some(event.stage);
            }
        }
    }
    for group in &evidence.groups {
        out.looked_at(3, usize::try_from(group.finished).unwrap_or(usize::MAX));
        for id in &group.skipped {
            out.add(Violation::Skipped, || {
                format!(
                    "{}: {id} lies below the committed offset, unhandled",
                    group.group
                )
            });
        }
        for partition in &group.behind {
            out.add(Violation::Unfinished, || {
                format!("{}: {partition}", group.group)
            });
        }
    }
}

/// Stages beside the way of an order: wishes to cancel and what is said to them.
const fn aside(stage: Stage) -> bool {
    matches!(stage, Stage::CancelAsked | Stage::CancelRefused)
}

/// The checker's own table of the way, forward and back: what may follow what.
fn follows(before: Option<Stage>, next: Stage) -> bool {
    use Stage as S;
    if aside(next) {
        return before.is_some();
    }
    let may: &[Stage] = match before {
        None => &[S::Received, S::Closed],
        Some(S::Received) => &[S::Assessed, S::CancelGranted, S::Closed],
        Some(S::Assessed) => &[S::Reserved, S::Undoing, S::CancelGranted],
        Some(S::Reserved) => &[S::Authorised, S::Undoing, S::CancelGranted],
        Some(S::Authorised) => &[S::Activated, S::Undoing, S::CancelGranted],
        Some(S::Activated) => &[S::Captured, S::Undoing, S::CancelGranted],
        // Past the pivot there is one way only.
        Some(S::Captured) => &[S::Invoiced],
        Some(S::Invoiced) => &[S::Fulfilled],
        Some(S::Undoing | S::CancelGranted) => &[S::Deactivated, S::Voided, S::Released, S::Closed],
        Some(S::Deactivated) => &[S::Voided],
        Some(S::Voided) => &[S::Released],
        Some(S::Released) => &[S::Closed],
        Some(S::Fulfilled | S::Closed | S::CancelAsked | S::CancelRefused) => &[],
    };
    may.contains(&next)
}
