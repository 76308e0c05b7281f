//! Invariant 8: the audit chains verify, and what is built afresh from the first message on says the
//! same as what the services kept: states, money, and stock.

use std::collections::{BTreeMap, BTreeSet};

use super::{ByOrder, Evidence, Verdict, Violation};
use crate::domain::audit::link;
use crate::domain::context::{Context, LogicError, Lookup, Nowhere};
use crate::domain::inventory::{self, Stock};
use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::payment::Paid;
use crate::domain::state::Stage;
use crate::money::Cents;

pub(super) fn check(evidence: &Evidence, orders: &ByOrder<'_>, out: &mut Verdict) {
    if let Some(audit) = &evidence.audit {
        chains(audit, orders, out);
    }
    let view = replay(&evidence.events);
    out.looked_at(8, view.len());
    for (order, status) in &view {
        let live = evidence.statuses.get(*order);
        if live != Some(status) {
            out.add(Violation::ReplayDiffers, || {
                format!("{order}: {status:?} by its events, {live:?} by the live view")
            });
        }
    }
    for order in evidence.statuses.keys() {
        if !view.contains_key(order.as_str()) {
            out.add(Violation::ReplayDiffers, || {
                format!("{order} is in the live view and has no event")
            });
        }
    }
    if let Some(commands) = &evidence.stock_commands {
        stock(evidence, commands, out);
    }
    for (order, events) in orders {
        let told = money(events);
        let kept = evidence.paid.get(*order).copied().unwrap_or_default();
        if told != kept {
            out.add(Violation::ReplayDiffers, || {
                format!("{order}: {told:?} by its events, {kept:?} by the payment service")
            });
        }
    }
}

/// A store that begins empty and knows which messages it has handled.
#[derive(Default)]
struct Fresh {
    values: BTreeMap<String, Vec<u8>>,
    handled: BTreeSet<String>,
}

impl Lookup for Fresh {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError> {
        Ok(self.values.get(key).cloned())
    }
}

/// Handles every command of the inventory once, in order, with nothing known before.
fn stock(evidence: &Evidence, commands: &[Message], out: &mut Verdict) {
    let mut fresh = Fresh::default();
    for message in commands {
        if !fresh.handled.insert(message.event_id.clone()) {
            continue;
        }
        let mut nowhere = Nowhere;
        let mut context = Context::new(&fresh, &mut nowhere, false);
        if let Err(error) = inventory::handle(&mut context, message) {
            out.add(Violation::ReplayDiffers, || {
                format!(
                    "{}: the inventory was told and could not: {error}",
                    message.event_id
                )
            });
            continue;
        }
        for (key, value) in context.finish().writes {
            fresh.values.extend(value.map(|value| (key, value)));
        }
    }
    let known = |key: &str| -> Option<Stock> {
        serde_json::from_slice(fresh.values.get(&format!("{}{key}", inventory::PREFIX))?).ok()
    };
    out.looked_at(8, fresh.values.len());
    for (bucket, kept) in &evidence.stock {
        let built = known(bucket);
        if built != Some(*kept) {
            out.add(Violation::ReplayDiffers, || {
                format!("{bucket}: {built:?} by its commands, {kept:?} in the inventory")
            });
        }
    }
    if fresh.values.len() != evidence.stock.len() {
        let (built, kept) = (fresh.values.len(), evidence.stock.len());
        out.add(Violation::ReplayDiffers, || {
            format!("{built} stocks by their commands, {kept} in the inventory")
        });
    }
}

/// A fresh status view.
pub(crate) fn replay(events: &[Message]) -> BTreeMap<&str, OrderStatus> {
    let mut view: BTreeMap<&str, OrderStatus> = BTreeMap::new();
    for message in events {
        if let Body::Event(event) = &message.body {
            let status = OrderStatus {
                state: event.state,
                stage: event.stage,
                sequence: message.sequence,
            };
            view.insert(&message.order_id, status);
        }
    }
    view
}

/// An order's money, by its events.
fn money(events: &[&Message]) -> Paid {
    let mut paid = Paid::default();
    for message in events {
        let Body::Event(event) = &message.body else {
            continue;
        };
        let amount = event.amount.unwrap_or(Cents(0));
        match event.stage {
            Stage::Authorised => paid.authorised = paid.authorised + amount,
            Stage::Captured => paid.captured = paid.captured + amount,
            Stage::Voided => paid.voided = paid.voided + amount,
            _ => {}
        }
    }
    paid
}

fn chains(audit: &[Message], orders: &ByOrder<'_>, out: &mut Verdict) {
    let mut entries: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in audit {
        entries.entry(&message.order_id).or_default().push(message);
    }
    for (order, events) in orders {
        let mut links = entries.remove(order).unwrap_or_default().into_iter();
        let mut previous = String::new();
        for event in events {
            let hash = link(&previous, event).unwrap_or_default();
            out.looked_at(8, 1);
            let sound = links.next().is_some_and(|message| match &message.body {
                Body::Audit(entry) => {
                    entry.of == event.event_id && entry.previous == previous && entry.hash == hash
                }
                _ => false,
            });
            if !sound {
                out.add(Violation::AuditBroken, || {
                    format!(
                        "{order}: the chain does not hold at event {}",
                        event.sequence
                    )
                });
                break;
            }
            previous = hash;
        }
        if links.next().is_some() {
            out.add(Violation::AuditBroken, || {
                format!("{order}: more links than events")
            });
        }
    }
    for order in entries.keys() {
        out.add(Violation::AuditBroken, || {
            format!("{order} has a chain and no event")
        });
    }
}
