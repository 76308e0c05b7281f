//! What of a partition need not be there any more: what was to be deleted, and what a later record of
//! its key has replaced.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::history::{Action, Offset, Value};
use crate::model::{Model, NONE, Partition, ValueFacts};

/// Of one partition.
#[derive(Default)]
pub(crate) struct Gone {
    /// Below this, somebody asked to delete everything.
    pub trimmed: Offset,
    /// Somebody asked to delete the topic.
    pub deleted: bool,
    /// Only the latest record of each key is kept.
    pub compacted: Option<Compacted>,
    /// Record keys with a tombstone that may have been stored and that nobody has seen: it may have removed
    /// every record of the key, and then itself.
    pub forgotten: HashSet<i64>,
    /// By value number, whether a later record of its key or it being a tombstone lets it go. Empty
    /// without compaction.
    replaced: Vec<bool>,
}

/// How values and record keys belong together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compacted {
    keys: i64,
    tombstones: i64,
}

impl Compacted {
    pub(crate) const fn record_key(self, value: Value) -> i64 {
        value.0.rem_euclid(self.keys)
    }

    pub(crate) const fn is_tombstone(self, value: Value) -> bool {
        self.tombstones > 0 && value.0.div_euclid(self.keys).rem_euclid(self.tombstones) == 0
    }
}

impl Partition {
    /// Whether readers may legally have found nothing where this value was.
    pub(crate) fn may_be_gone(&self, facts: &ValueFacts) -> bool {
        facts.last_rank != NONE && self.offset(facts.last_rank) < self.gone.trimmed
            || facts.replaced_in(&self.gone.replaced)
    }

    /// The same of every value at these ranks.
    pub(crate) fn all_may_be_gone(&self, ranks: Range<u32>) -> bool {
        let from = self.log.partition_point(|(rank, _)| *rank < ranks.start);
        let within = self.log[from..].iter();
        let mut within = within.take_while(|(rank, _)| *rank < ranks.end).peekable();
        within.peek().is_some() && within.all(|(_, value)| self.may_be_gone(self.fact(*value)))
    }
}

impl ValueFacts {
    fn replaced_in(&self, replaced: &[bool]) -> bool {
        replaced.get(self.number as usize).copied().unwrap_or(false)
    }
}

impl Model<'_> {
    pub(crate) fn note_gone(&mut self) {
        for action in self.history.all_actions() {
            let Some(place) = self.partition_number(action.key()) else {
                continue;
            };
            let gone = &mut self.partitions[place].gone;
            match *action {
                Action::Trim { before, .. } => gone.trimmed = gone.trimmed.max(before),
                Action::Delete(_) => gone.deleted = true,
                Action::Compacted {
                    keys, tombstones, ..
                } => {
                    gone.compacted = Some(Compacted {
                        keys: i64::from(keys),
                        tombstones: i64::from(tombstones),
                    });
                }
                _ => {}
            }
        }
        for partition in &mut self.partitions {
            if let Some(compacted) = partition.gone.compacted {
                partition.gone.forgotten = forgotten(partition, compacted);
                partition.gone.replaced = replaced(partition, compacted);
            }
        }
    }
}

fn replaced(partition: &Partition, compacted: Compacted) -> Vec<bool> {
    let mut last: HashMap<i64, u32> = HashMap::new();
    for (_, number) in &partition.log {
        let key = compacted.record_key(partition.value(*number));
        last.insert(key, *number);
    }
    let of = |(number, value): (usize, &Value)| {
        let key = compacted.record_key(*value);
        let later = last.get(&key);
        compacted.is_tombstone(*value)
            || partition.gone.forgotten.contains(&key)
            || later.is_some_and(|last| *last as usize != number)
    };
    partition.values.iter().enumerate().map(of).collect()
}

fn forgotten(partition: &Partition, compacted: Compacted) -> HashSet<i64> {
    let sent = partition.sent.iter().map(|sent| partition.fact(sent.value));
    let unseen = sent.filter(|facts| facts.possible && facts.first_rank == NONE);
    let values = unseen.map(|facts| partition.value(facts.number));
    let tombstones = values.filter(|value| compacted.is_tombstone(*value));
    tombstones
        .map(|value| compacted.record_key(value))
        .collect()
}
