//! The checker's second half: the events topic. Every order in the log is priced once, in order,
//! at what its account is charged.

use std::collections::BTreeMap;

use crate::account::Account;
use crate::evidence::Observed;
use crate::money::Cents;
use crate::order::{OrderNumber, PricedEvent, SCHEMA_VERSION, Source};
use crate::verify::{Evidence, Present, Verification, Violation};

pub(crate) fn check_events(evidence: &Evidence<'_>, present: &Present<'_>, out: &mut Verification) {
    let mut priced: BTreeMap<OrderNumber, Source> = BTreeMap::new();
    let mut order = EventOrder::default();
    for record in evidence.events {
        let at = record.at;
        let place = format!("events {}/{}", at.partition, at.offset);
        let Ok(event) = serde_json::from_slice::<PricedEvent>(&record.value) else {
            out.add(Violation::Phantom, || {
                format!("{place} holds no priced event")
            });
            continue;
        };
        let number = evidence.plan.run().number_of(&event.order_id);
        let cause = number.and_then(|number| Some((number, present.get(&number)?)));
        let Some((number, (cause, placed))) = cause else {
            out.add(Violation::Phantom, || {
                format!(
                    "{place} prices {}, which is not in the intake topic",
                    event.order_id
                )
            });
            continue;
        };
        if let Some(first) = priced.get(&number) {
            let (partition, offset) = (first.partition, first.offset);
            out.add(Violation::Duplicated, || {
                format!(
                    "{place} prices {} again, after {partition}/{offset}",
                    event.order_id
                )
            });
            continue;
        }
        priced.insert(number, at);
        out.priced += 1;
        out.priced_total_cents = out.priced_total_cents + event.body.total_cents;
        let linked = record.key == event.order_id.as_bytes()
            && event.causation_id.as_deref() == Some(placed.event_id.as_str())
            && event.traceparent == placed.traceparent
            && event.schema_version == SCHEMA_VERSION
            && event.body.source == cause.at;
        if !linked {
            out.add(Violation::Altered, || {
                format!("{place}: {} does not name its cause", event.order_id)
            });
        }
        if let Some(problem) = order.problem(record, &event) {
            out.add(Violation::OutOfOrder, || {
                format!("{place}: {} {problem}", event.order_id)
            });
        }
        let problem = evidence
            .plan
            .account(number)
            .and_then(|account| price_of(account, &event));
        if let Some(problem) = problem {
            out.add(Violation::PriceMismatch, || {
                format!("{place}: {} {problem}", event.order_id)
            });
        }
    }
    check_all_priced(evidence, present, &priced, out);
}

/// Every order in the log is priced, and what all of them must cost.
fn check_all_priced(
    evidence: &Evidence<'_>,
    present: &Present<'_>,
    priced: &BTreeMap<OrderNumber, Source>,
    out: &mut Verification,
) {
    for number in present.keys() {
        let account = evidence.plan.account(*number);
        let charge = account.map_or(Cents(0), |account| account.monthly_charges);
        out.expected_total_cents = out.expected_total_cents + charge;
        if !priced.contains_key(number) {
            out.add(Violation::Unpriced, || {
                format!(
                    "{} has no priced event",
                    evidence.plan.run().order_id(*number)
                )
            });
        }
    }
}

/// What has been seen of the events topic so far.
#[derive(Default)]
struct EventOrder {
    /// Highest offset read, by partition.
    read: BTreeMap<u32, u64>,
    /// Highest source offset, by the partition of the source and of the event: both topics are
    /// keyed alike, so that pricing keeps the order of a partition.
    sources: BTreeMap<(u32, u32), u64>,
}

impl EventOrder {
    fn problem(&mut self, record: &Observed, event: &PricedEvent) -> Option<&'static str> {
        let at = record.at;
        let read = self.read.insert(at.partition, at.offset);
        let source = event.body.source;
        let before = self
            .sources
            .insert((source.partition, at.partition), source.offset);
        if event.sequence != 2 {
            return Some("is not the second event of its order");
        }
        if read.is_some_and(|offset| at.offset <= offset) {
            return Some("was read after a later offset");
        }
        before
            .is_some_and(|offset| source.offset <= offset)
            .then_some("lies after an order that was taken in later")
    }
}

/// What is wrong with a price, judged by the account and the catalogue alone.
fn price_of(account: &Account, event: &PricedEvent) -> Option<String> {
    let priced = &event.body;
    if priced.total_cents != account.monthly_charges {
        let (total, charge) = (priced.total_cents, account.monthly_charges);
        return Some(format!(
            "was priced at {total}, its account is charged {charge}"
        ));
    }
    let sum: i64 = priced.lines.iter().map(|line| line.amount_cents.0).sum();
    if sum != priced.total_cents.0 {
        return Some(format!("has lines that add up to {}", Cents(sum)));
    }
    let mut items = Vec::new();
    let mut adjustments = 0;
    for line in &priced.lines {
        match line.sku {
            None => adjustments += 1,
            Some(sku) if sku.list_price() != line.amount_cents => {
                return Some(format!("has {sku} at {}", line.amount_cents));
            }
            Some(sku) => items.push(sku),
        }
    }
    items.sort_unstable();
    let mut services = account.services.clone();
    services.sort_unstable();
    if items != services {
        return Some("was priced for other items than its account takes".to_owned());
    }
    (adjustments > 1).then(|| format!("has {adjustments} adjustment lines"))
}
