//! The independent checker: from the plan, the journals kept outside of the pipeline, and what can
//! be read back, to what is wrong.
//!
//! It runs as a program of its own (`highwater order-check`), knows nothing of how the run went,
//! and computes what an order must cost and how it may end from the input alone. [`judge`] is pure;
//! [`gather`] collects what it judges.

mod audit;
mod effects;
mod ends;
mod gather;
mod intake;
mod money;
mod replicas;
mod sequence;
mod stock;
mod verdict;

use std::collections::BTreeMap;

use crate::domain::billing::Invoice;
use crate::domain::inventory::Stock;
use crate::domain::message::{Message, OrderStatus};
use crate::domain::payment::Paid;
use crate::evidence::ReplicaRead;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::services::outside::Effect;

pub use gather::{Facts, gather};
pub use verdict::{Invariant, Verdict, Violation, Violations};

/// What a consumer group has done with its topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEvidence {
    /// The group.
    pub group: String,
    /// Messages below its committed offsets.
    pub finished: u64,
    /// Of those, the ids of messages that are neither in its inbox nor among its dead letters.
    pub skipped: Vec<String>,
    /// Partitions whose committed offset is not the end of the partition: `partition: committed of
    /// end`.
    pub behind: Vec<String>,
}

/// Everything the checker goes by.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What was going to be ordered.
    pub plan: Plan,
    /// What the load knows.
    pub journal: Journal,
    /// The intake topics, in the order read; none where there is no broker.
    pub intake: Option<Vec<Message>>,
    /// The events, per order in the order in which they were written.
    pub events: Vec<Message>,
    /// What the providers did.
    pub effects: Vec<Effect>,
    /// Every replica's own copy of every partition.
    pub replicas: Vec<ReplicaRead>,
    /// What the groups have done.
    pub groups: Vec<GroupEvidence>,
    /// Payments, by order.
    pub paid: BTreeMap<String, Paid>,
    /// Both sides of the ledger.
    pub ledger: Vec<i64>,
    /// Whether an order's services are on: 1.
    pub lines: BTreeMap<String, i64>,
    /// Stock, by item and bucket.
    pub stock: BTreeMap<String, Stock>,
    /// Everything that the inventory was told, each bucket's in order; none where there is no broker.
    pub stock_commands: Option<Vec<Message>>,
    /// Invoices, by order.
    pub invoices: BTreeMap<String, Invoice>,
    /// The live status view.
    pub statuses: BTreeMap<String, OrderStatus>,
    /// The audit log; none where there is no broker.
    pub audit: Option<Vec<Message>>,
    /// Orders parked before the repair, and after it.
    pub parked: (u64, u64),
}

/// The events of each order, in the order read.
type ByOrder<'a> = BTreeMap<&'a str, Vec<&'a Message>>;

/// Judges a run.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let mut orders = ByOrder::new();
    for event in &evidence.events {
        orders
            .entry(event.order_id.as_str())
            .or_default()
            .push(event);
    }
    intake::check(evidence, &orders, &mut verdict);
    effects::check(evidence, &orders, &mut verdict);
    sequence::check(evidence, &orders, &mut verdict);
    ends::check(evidence, &orders, &mut verdict);
    money::check(evidence, &orders, &mut verdict);
    stock::check(evidence, &orders, &mut verdict);
    replicas::check(evidence, &mut verdict);
    audit::check(evidence, &orders, &mut verdict);
    verdict.finish();
    verdict
}

/// The terminal state that an order's events lead to; none while it goes on.
fn end(events: &[&Message]) -> Option<crate::domain::state::OrderState> {
    let mut states = events.iter().filter_map(|event| match &event.body {
        crate::domain::message::Body::Event(event) => Some(event.state),
        _ => None,
    });
    states.next_back().filter(|state| state.is_terminal())
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
