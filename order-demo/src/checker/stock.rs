//! Invariant 6: stock adds up, nothing is reserved at rest, and what is consumed was fulfilled.

use std::collections::BTreeMap;

use super::{ByOrder, Evidence, Verdict, Violation, end};
use crate::domain::inventory::PREFIX;
use crate::domain::state::OrderState;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    out.looked_at(6, evidence.stock.len());
    let mut consumed: BTreeMap<String, i64> = BTreeMap::new();
    for (bucket, stock) in &evidence.stock {
        if !stock.adds_up() || stock.reserved != 0 {
            out.add(Violation::Stock, || format!("{bucket}: {stock:?}"));
        }
        let sku = bucket.trim_start_matches(PREFIX).split('#').next();
        *consumed
            .entry(sku.unwrap_or_default().to_owned())
            .or_default() += stock.consumed;
    }
    let mut fulfilled: BTreeMap<String, i64> = BTreeMap::new();
    for (order, events) in orders {
        if end(events) != Some(OrderState::Completed) {
            continue;
        }
        let number = evidence.plan.run().number_of(order);
        let Some(request) = number.and_then(|number| evidence.plan.request(number)) else {
            continue;
        };
        for item in request.items {
            *fulfilled.entry(item.sku.to_string()).or_default() += i64::from(item.quantity);
        }
    }
    for (sku, used) in &consumed {
        let wanted = fulfilled.remove(sku).unwrap_or(0);
        if *used != wanted {
            out.add(Violation::Stock, || {
                format!("{sku}: {used} consumed, {wanted} in fulfilled orders")
            });
        }
    }
    for (sku, wanted) in fulfilled {
        out.add(Violation::Stock, || {
            format!("{sku}: {wanted} in fulfilled orders, no stock")
        });
    }
}
