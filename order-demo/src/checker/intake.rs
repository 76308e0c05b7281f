//! Invariant 1: every accepted order is in the log, once and as sent; every logged one was sent.

use std::collections::BTreeSet;

use super::{ByOrder, Evidence, Verdict, Violation};
use crate::domain::message::Body;
use crate::journal::Fate;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    let run = evidence.plan.run();
    let mut present = BTreeSet::new();
    match &evidence.intake {
        None => present.extend(orders.keys().copied()),
        Some(intake) => {
            for message in intake {
                let Body::Placed(request) = &message.body else {
                    continue;
                };
                let id = message.order_id.as_str();
                if !present.insert(id) {
                    out.add(Violation::Duplicated, || format!("{id} was placed twice"));
                }
                let planned = run
                    .number_of(id)
                    .and_then(|number| evidence.plan.request(number));
                if planned.as_ref().is_some_and(|planned| planned != request) {
                    out.add(Violation::Altered, || format!("{id} is not as sent"));
                }
            }
            for id in orders.keys() {
                if !present.contains(id) {
                    out.add(Violation::Phantom, || {
                        format!("{id} has events and was never placed")
                    });
                }
            }
        }
    }
    out.looked_at(1, present.len());
    for id in &present {
        let sent = run
            .number_of(id)
            .and_then(|number| evidence.journal.fate(number));
        if sent.is_none() {
            out.add(Violation::Phantom, || format!("{id} was never sent"));
        }
    }
    for (number, fate) in evidence.journal.fates() {
        let id = run.order_id(number);
        let there = present.contains(id.as_str());
        match fate {
            Fate::Accepted => {
                out.acknowledged += 1;
                if !there {
                    out.add(Violation::Lost, || format!("{id} was accepted and is gone"));
                }
            }
            Fate::Refused => {
                out.refused += 1;
                if there {
                    out.add(Violation::RefusedButPresent, || {
                        format!("{id} was refused and is there")
                    });
                }
            }
            Fate::Unknown => {
                out.unknown += 1;
                out.unknown_present += u64::from(there);
            }
        }
    }
}
