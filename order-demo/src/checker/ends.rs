//! Invariant 4: once drained, every order has ended, once, and as its input says it may.

use super::{ByOrder, Evidence, Verdict, Violation, end};
use crate::domain::message::Body;
use crate::domain::state::Stage;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    out.looked_at(4, orders.len());
    for (order, events) in orders {
        let ends = events.iter().filter(|message| match &message.body {
            Body::Event(event) => event.state.is_terminal() && event.stage != Stage::CancelRefused,
            _ => false,
        });
        let ends = ends.count();
        let Some(state) = end(events).filter(|_| ends == 1) else {
            out.add(Violation::EndCount, || {
                format!("{order} has ended {ends} times")
            });
            continue;
        };
        let name = format!("{state:?}").to_lowercase();
        *out.ends.entry(name).or_default() += 1;
        let Some(number) = evidence.plan.run().number_of(order) else {
            continue;
        };
        let deviation = evidence.plan.deviation(number);
        if !deviation.ends().contains(&state) {
            out.add(Violation::WrongEnd, || {
                format!("{order} is {state:?}, and its input is {deviation:?}")
            });
        }
    }
    // An order without any event has not even begun. That it was accepted is invariant 1.
    if let Some(intake) = &evidence.intake {
        for message in intake {
            let placed = matches!(message.body, Body::Placed(_));
            if placed && !orders.contains_key(message.order_id.as_str()) {
                let id = &message.order_id;
                out.add(Violation::EndCount, || {
                    format!("{id} was placed and has no event")
                });
            }
        }
    }
    let (before, after) = evidence.parked;
    out.parked = before;
    if before != evidence.plan.poison() || after != 0 {
        let injected = evidence.plan.poison();
        out.add(Violation::Parked, || {
            format!("{injected} orders were poisoned, {before} parked, {after} stayed so")
        });
    }
}
