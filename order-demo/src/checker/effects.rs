//! Invariant 2: what happens outside happens at most once per order, and exactly once if the order
//! was fulfilled.

use std::collections::BTreeMap;

use super::{ByOrder, Evidence, Verdict, Violation, end};
use crate::domain::context::EffectKind;
use crate::domain::state::OrderState;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    let mut done: BTreeMap<(&str, EffectKind), u64> = BTreeMap::new();
    for effect in &evidence.effects {
        if effect.suppressed {
            out.suppressed += 1;
            continue;
        }
        *done
            .entry((effect.order_id.as_str(), effect.kind))
            .or_default() += 1;
        *out.effects.entry(format!("{:?}", effect.kind)).or_default() += 1;
    }
    out.looked_at(2, done.len());
    for ((order, kind), times) in &done {
        if *times > 1 {
            out.add(Violation::EffectTwice, || {
                format!("{order}: {kind:?} took effect {times} times")
            });
        }
        if !orders.contains_key(order) {
            out.add(Violation::EffectWrong, || {
                format!("{order}: {kind:?} for an order without events")
            });
        }
    }
    for (order, events) in orders {
        let count = |kind| done.get(&(*order, kind)).copied().unwrap_or(0);
        let (on, off) = (count(EffectKind::Activate), count(EffectKind::Deactivate));
        let captured = count(EffectKind::Capture);
        match end(events) {
            Some(OrderState::Completed) if (on, off, captured) != (1, 0, 1) => {
                out.add(Violation::EffectWrong, || {
                    format!(
                        "{order} is complete, was activated {on} times, deactivated {off} times, \
                         captured {captured} times"
                    )
                });
            }
            Some(OrderState::Completed) | None => {}
            Some(state) if on != off || captured != 0 => {
                out.add(Violation::EffectWrong, || {
                    format!(
                        "{order} is {state:?}, was activated {on} times, deactivated {off} times, \
                         captured {captured} times"
                    )
                });
            }
            Some(_) => {}
        }
    }
}
