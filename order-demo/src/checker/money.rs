//! Invariant 5: money at rest. What an order must cost comes from its account alone.

use super::{ByOrder, Evidence, Verdict, Violation, end};
use crate::domain::payment::Paid;
use crate::domain::state::OrderState;
use crate::money::Cents;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    out.looked_at(5, evidence.paid.len());
    for (order, paid) in &evidence.paid {
        if paid.authorised != paid.captured + paid.voided {
            out.add(Violation::Money, || {
                format!(
                    "{order}: authorised {}, captured {}, voided {}",
                    paid.authorised, paid.captured, paid.voided
                )
            });
        }
    }
    for (order, events) in orders {
        one(evidence, order, end(events), out);
    }
    for order in evidence.invoices.keys() {
        let complete = orders.get(order.as_str()).and_then(|events| end(events));
        if complete != Some(OrderState::Completed) {
            out.add(Violation::Money, || {
                format!("{order} is {complete:?} and has an invoice")
            });
        }
    }
    let sum: i64 = evidence.ledger.iter().sum();
    if sum != 0 {
        out.add(Violation::Money, || {
            format!("the ledger comes to {}", Cents(sum))
        });
    }
}

fn one(evidence: &Evidence, order: &str, state: Option<OrderState>, out: &mut Verdict) {
    let paid = evidence.paid.get(order).copied().unwrap_or(Paid::default());
    let on = evidence.lines.get(order).copied().unwrap_or(0);
    if state != Some(OrderState::Completed) {
        if state.is_some() && (paid.captured != Cents(0) || on != 0) {
            out.add(Violation::Money, || {
                format!(
                    "{order} is {state:?}, captured {}, {on} active lines",
                    paid.captured
                )
            });
        }
        return;
    }
    let number = evidence.plan.run().number_of(order);
    let Some(account) = number.and_then(|number| evidence.plan.account(number)) else {
        return;
    };
    let must = account.monthly_charges;
    out.expected_total_cents += must.0;
    let Some(invoice) = evidence.invoices.get(order) else {
        out.add(Violation::Money, || {
            format!("{order} is complete and has no invoice")
        });
        return;
    };
    out.priced += 1;
    out.priced_total_cents += invoice.total.0;
    let items = invoice
        .lines
        .iter()
        .filter_map(|line| Some((line.sku?, line.amount)));
    let items: Vec<_> = items.collect();
    let listed: Vec<_> = account
        .services
        .iter()
        .map(|sku| (*sku, sku.list_price()))
        .collect();
    let sum: Cents = invoice.lines.iter().map(|line| line.amount).sum();
    if invoice.total != must || sum != must || items != listed {
        out.add(Violation::PriceMismatch, || {
            format!(
                "{order} must cost {must}; its invoice says {}, its lines {sum}",
                invoice.total
            )
        });
    }
    if paid.captured != must || on != 1 {
        out.add(Violation::Money, || {
            format!(
                "{order} must cost {must}; captured {}, {on} active lines",
                paid.captured
            )
        });
    }
}
