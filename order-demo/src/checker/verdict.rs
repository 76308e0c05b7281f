//! What the checker found, as JSON for the report.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many examples of each kind of violation are described; all are counted.
const EXAMPLES: usize = 10;

/// Kinds of broken promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// Accepted, and not in the log.
    Lost,
    /// In the log more than once, or an event twice.
    Duplicated,
    /// In the log, and never sent.
    Phantom,
    /// Refused for certain, and in the log all the same.
    RefusedButPresent,
    /// In the log with another content than was sent.
    Altered,
    /// An effect outside happened twice.
    EffectTwice,
    /// An order is complete without an effect that it needs, or has one that it must not have.
    EffectWrong,
    /// Events of an order with a gap, or out of order.
    OutOfOrder,
    /// A state that may not follow the one before.
    IllegalState,
    /// A committed offset passed a message that was not handled.
    Skipped,
    /// A group has not finished its topic.
    Unfinished,
    /// An order has not ended, or ended twice.
    EndCount,
    /// An order ended otherwise than its input says.
    WrongEnd,
    /// Parked orders are not those that were poisoned, or some stayed parked.
    Parked,
    /// A price that is not that of the input.
    PriceMismatch,
    /// Money that does not add up.
    Money,
    /// Stock that does not add up.
    Stock,
    /// Replicas hold different records.
    ReplicasDiffer,
    /// An audit chain is broken.
    AuditBroken,
    /// What is rebuilt from the events is not what the live view says.
    ReplayDiffers,
}

impl Violation {
    /// The invariant that it breaks.
    #[must_use]
    pub const fn invariant(self) -> usize {
        match self {
            Self::Lost
            | Self::Duplicated
            | Self::Phantom
            | Self::RefusedButPresent
            | Self::Altered => 1,
            Self::EffectTwice | Self::EffectWrong => 2,
            Self::OutOfOrder | Self::IllegalState | Self::Skipped | Self::Unfinished => 3,
            Self::EndCount | Self::WrongEnd | Self::Parked => 4,
            Self::PriceMismatch | Self::Money => 5,
            Self::Stock => 6,
            Self::ReplicasDiffer => 7,
            Self::AuditBroken | Self::ReplayDiffers => 8,
        }
    }
}

/// The invariants, in words.
const NAMES: [&str; 8] = [
    "accepted orders are in the log once, logged ones were sent",
    "effects outside happen at most once, exactly once if fulfilled",
    "sequences are gapless and legal, offsets pass nothing unhandled",
    "every order ends once, as its input says; parked = injected",
    "authorised = captured + voided, captured = invoiced = input",
    "stock adds up, nothing reserved at rest, consumed = fulfilled",
    "all replicas hold the same",
    "audit chains verify, a replay rebuilds the live view",
];

/// All violations of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// How many.
    pub count: u64,
    /// The first few, one sentence each.
    pub examples: Vec<String>,
}

/// One invariant, judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// Its number, from 1.
    pub number: usize,
    /// In words.
    pub name: String,
    /// How many things were looked at for it. Nothing looked at is nothing shown.
    pub checked: u64,
    /// How many of them were wrong.
    pub violated: u64,
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every promise was kept, and each was looked at.
    pub passed: bool,
    /// Orders that were accepted.
    pub acknowledged: u64,
    /// Orders that were certainly not taken over.
    pub refused: u64,
    /// Orders of which the load does not know.
    pub unknown: u64,
    /// Of those unknown, how many the log holds. Never counted as lost or kept.
    pub unknown_present: u64,
    /// Orders by how they ended.
    pub ends: BTreeMap<String, u64>,
    /// Effects outside, by kind.
    pub effects: BTreeMap<String, u64>,
    /// Effects that came again and were suppressed.
    pub suppressed: u64,
    /// Orders that were priced and invoiced.
    pub priced: u64,
    /// What the fulfilled orders must cost together, from the input alone.
    pub expected_total_cents: i64,
    /// What they were invoiced at.
    pub priced_total_cents: i64,
    /// Copies of partitions that were compared.
    pub replica_copies: u64,
    /// Messages in all topics.
    pub messages: u64,
    /// Orders parked before the repair.
    pub parked: u64,
    /// The invariants.
    pub invariants: Vec<Invariant>,
    /// What is wrong; only kinds that occur.
    pub violations: BTreeMap<Violation, Violations>,
    #[serde(skip)]
    checked: [u64; 8],
    /// Invariants that this run cannot show, as there is no broker.
    #[serde(default)]
    pub not_applicable: Vec<usize>,
}

impl Verdict {
    /// How often a kind of violation occurs.
    #[must_use]
    pub fn count(&self, kind: Violation) -> u64 {
        self.violations.get(&kind).map_or(0, |found| found.count)
    }

    pub(super) fn add(&mut self, kind: Violation, describe: impl FnOnce() -> String) {
        let found = self.violations.entry(kind).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(describe());
        }
    }

    /// So many things were looked at for an invariant.
    pub(super) fn looked_at(&mut self, invariant: usize, things: usize) {
        if let Some(checked) = invariant
            .checked_sub(1)
            .and_then(|at| self.checked.get_mut(at))
        {
            *checked += things as u64;
        }
    }

    pub(super) fn finish(&mut self) {
        for (at, name) in NAMES.into_iter().enumerate() {
            let number = at + 1;
            let of = |kind: &&Violation| kind.invariant() == number;
            let kinds: Vec<Violation> = self.violations.keys().filter(of).copied().collect();
            self.invariants.push(Invariant {
                number,
                name: name.to_owned(),
                checked: self.checked.get(at).copied().unwrap_or(0),
                violated: kinds.into_iter().map(|kind| self.count(kind)).sum(),
            });
        }
        let vacuous = |i: &Invariant| i.checked == 0 && !self.not_applicable.contains(&i.number);
        let vacuous = self.invariants.iter().any(vacuous);
        self.passed = self.violations.is_empty() && !vacuous && self.acknowledged > 0;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for invariant in &self.invariants {
            let Invariant {
                number,
                name,
                checked,
                violated,
            } = invariant;
            let judged = match (violated, checked) {
                (0, 0) if self.not_applicable.contains(number) => "not applicable".to_owned(),
                (0, 0) => "NOT SHOWN: nothing to look at".to_owned(),
                (0, checked) => format!("held ({checked} checked)"),
                (violated, checked) => format!("BROKEN {violated} times ({checked} checked)"),
            };
            writeln!(f, "  {number}. {name}: {judged}")?;
        }
        for (kind, found) in &self.violations {
            writeln!(f, "  {kind:?}: {}", found.count)?;
            for example in &found.examples {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}
