//! The independent checker: from the plan, the journal, and what was read back, to what is wrong.
//!
//! It knows nothing of how the run went, asks the broker nothing, and does not use the pricing
//! code: what an order must cost is computed from the accounts and the catalogue alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::evidence::{Observed, ReplicaRead};
use crate::journal::{Fate, Journal};
use crate::money::Cents;
use crate::order::{OrderNumber, PlacedEvent, Source};
use crate::plan::Plan;
use crate::verify_events::check_events;

/// How many examples of each kind of violation are described; all are counted.
const EXAMPLES: usize = 20;

/// Everything the checker goes by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What was going to be ordered.
    pub plan: &'a Plan,
    /// What the sender knows.
    pub journal: &'a Journal,
    /// The intake topic, in the order read.
    pub intake: &'a [Observed],
    /// The events topic, in the order read.
    pub events: &'a [Observed],
    /// Every replica's own copy of every partition of both topics.
    pub replicas: &'a [ReplicaRead],
}

/// Kinds of broken promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// Acknowledged, and not in the log.
    Lost,
    /// In the log more than once, or priced more than once.
    Duplicated,
    /// In the log, and never sent.
    Phantom,
    /// Refused for certain, and in the log all the same.
    RefusedButPresent,
    /// In the log, and not where it was acknowledged.
    Misplaced,
    /// After something that was sent later; or events of one order with a gap.
    OutOfOrder,
    /// In the log with another content than was sent.
    Altered,
    /// In the intake topic, and never priced.
    Unpriced,
    /// Priced at something else than its account is charged.
    PriceMismatch,
    /// Replicas hold different records.
    ReplicasDiffer,
}

/// All violations of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// How many.
    pub count: u64,
    /// The first few, one sentence each.
    pub examples: Vec<String>,
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Orders that were acknowledged.
    pub acknowledged: u64,
    /// Orders that were certainly not written.
    pub refused: u64,
    /// Orders of which the sender does not know.
    pub unknown: u64,
    /// Of those unknown, how many the log holds. Never counted as lost or kept.
    pub unknown_present: u64,
    /// Orders with a priced event.
    pub priced: u64,
    /// What all orders in the log must cost together, from the input alone.
    pub expected_total_cents: Cents,
    /// What they were priced at.
    pub priced_total_cents: Cents,
    /// Copies of partitions that were compared.
    pub replica_copies: u64,
    /// What is wrong; only kinds that occur.
    pub violations: BTreeMap<Violation, Violations>,
}

impl Verification {
    /// Whether every promise was kept.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// How often a kind of violation occurs.
    #[must_use]
    pub fn count(&self, kind: Violation) -> u64 {
        self.violations.get(&kind).map_or(0, |found| found.count)
    }

    pub(crate) fn add(&mut self, kind: Violation, describe: impl FnOnce() -> String) {
        let found = self.violations.entry(kind).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(describe());
        }
    }
}

/// The intake record that stands for each order in the log: the first, when there are more.
pub(crate) type Present<'a> = BTreeMap<OrderNumber, (&'a Observed, PlacedEvent)>;

/// Judges a run.
#[must_use]
pub fn verify(evidence: &Evidence<'_>) -> Verification {
    let mut out = Verification::default();
    let present = check_intake(evidence, &mut out);
    check_fates(evidence, &present, &mut out);
    check_intake_order(evidence, &mut out);
    check_events(evidence, &present, &mut out);
    check_replicas(evidence, &mut out);
    out
}

/// Each record of the intake topic: sent by us, once, unaltered.
fn check_intake<'a>(evidence: &Evidence<'a>, out: &mut Verification) -> Present<'a> {
    let mut present = Present::new();
    for record in evidence.intake {
        let at = record.at;
        let place = format!("intake {}/{}", at.partition, at.offset);
        let Some(event) = parse_placed(record) else {
            out.add(Violation::Phantom, || {
                format!("{place} holds no order event")
            });
            continue;
        };
        let number = evidence.plan.run().number_of(&event.order_id);
        let sent = number.filter(|number| evidence.journal.fate(*number).is_some());
        let Some(number) = sent else {
            out.add(Violation::Phantom, || {
                format!("{place}: {} was never sent", event.order_id)
            });
            continue;
        };
        if record.key != event.order_id.as_bytes()
            || evidence
                .plan
                .event(number, event.intended_start_ms)
                .as_ref()
                != Some(&event)
        {
            out.add(Violation::Altered, || {
                format!("{place}: {} is not as sent", event.order_id)
            });
        }
        match present.get(&number) {
            None => {
                present.insert(number, (record, event));
            }
            Some((first, _)) => {
                let first = first.at;
                out.add(Violation::Duplicated, || {
                    format!(
                        "{} lies at intake {}/{} and again at {}/{}",
                        event.order_id, first.partition, first.offset, at.partition, at.offset
                    )
                });
            }
        }
    }
    present
}

fn parse_placed(record: &Observed) -> Option<PlacedEvent> {
    serde_json::from_slice(&record.value).ok()
}

/// Each intended order: acknowledged ones are there, where they were acknowledged; refused are not.
fn check_fates(evidence: &Evidence<'_>, present: &Present<'_>, out: &mut Verification) {
    let id = |number| evidence.plan.run().order_id(number);
    let places: BTreeMap<Source, &[u8]> = evidence
        .intake
        .iter()
        .map(|record| (record.at, record.key.as_slice()))
        .collect();
    for (number, fate) in evidence.journal.fates() {
        let found = present.get(&number).map(|(record, _)| record.at);
        match (fate, found) {
            (Fate::Acknowledged(at), None) => {
                out.acknowledged += 1;
                out.add(Violation::Lost, || {
                    let (partition, offset) = (at.partition, at.offset);
                    format!(
                        "{} was acknowledged at intake {partition}/{offset}",
                        id(number)
                    )
                });
            }
            (Fate::Acknowledged(at), Some(found)) => {
                out.acknowledged += 1;
                // With a duplicate, any of its places may be the acknowledged one.
                if found != at && places.get(&at) != Some(&id(number).as_bytes()) {
                    out.add(Violation::Misplaced, || {
                        format!(
                            "{} was acknowledged at intake {}/{} and lies at {}/{}",
                            id(number),
                            at.partition,
                            at.offset,
                            found.partition,
                            found.offset
                        )
                    });
                }
            }
            (Fate::Refused, None) => out.refused += 1,
            (Fate::Refused, Some(found)) => {
                out.refused += 1;
                out.add(Violation::RefusedButPresent, || {
                    let (partition, offset) = (found.partition, found.offset);
                    format!(
                        "{} was refused and lies at intake {partition}/{offset}",
                        id(number)
                    )
                });
            }
            (Fate::Unknown, found) => {
                out.unknown += 1;
                out.unknown_present += u64::from(found.is_some());
            }
        }
    }
}

/// One producer sent all orders by number: within a partition they must lie by number, and offsets
/// must rise as read. A second copy of an order is a duplicate and not also out of order.
fn check_intake_order(evidence: &Evidence<'_>, out: &mut Verification) {
    let mut last: BTreeMap<u32, (u64, Option<OrderNumber>)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in evidence.intake {
        let at = record.at;
        let key = String::from_utf8_lossy(&record.key);
        let number = evidence
            .plan
            .run()
            .number_of(&key)
            .filter(|number| seen.insert(*number));
        let (offset, highest) = last.entry(at.partition).or_insert((at.offset, None));
        let back = at.offset < *offset;
        let overtaken = matches!((number, &highest), (Some(n), Some(before)) if n < *before);
        if back || overtaken {
            out.add(Violation::OutOfOrder, || {
                let (partition, offset) = (at.partition, at.offset);
                format!("{key} lies at intake {partition}/{offset}, after what was sent later")
            });
        }
        *offset = at.offset;
        *highest = number.max(*highest);
    }
}

/// Every copy of a partition holds the same records.
fn check_replicas(evidence: &Evidence<'_>, out: &mut Verification) {
    let mut first: BTreeMap<(&str, u32), &ReplicaRead> = BTreeMap::new();
    for copy in evidence.replicas {
        out.replica_copies += 1;
        let known = *first.entry((&copy.topic, copy.partition)).or_insert(copy);
        if known.digest == copy.digest {
            continue;
        }
        out.add(Violation::ReplicasDiffer, || {
            format!(
                "{}/{}: broker {} holds {} records to offset {}, broker {} holds {} to {}{}",
                copy.topic,
                copy.partition,
                known.broker,
                known.digest.records,
                known.digest.end,
                copy.broker,
                copy.digest.records,
                copy.digest.end,
                if known.digest.end == copy.digest.end {
                    ", with other content"
                } else {
                    ""
                },
            )
        });
    }
}
