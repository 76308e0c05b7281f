//! Follows every process's position in every partition it reads. Shared by the two checks on the
//! order of polls; finds nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use crate::history::{Action, Entry, Function, Key, Offset, Process};
use crate::model::{Model, Partition};

/// Two reads of one partition, one directly after the other in the eyes of one process.
pub(super) struct Step<'a> {
    pub partition: &'a Partition,
    pub process: Process,
    /// History indexes of the polls that returned the first and the second record.
    pub entries: [u64; 2],
    pub from: Offset,
    pub to: Offset,
    /// How many records of the log further on; 1 is the next one.
    pub ranks: i64,
    /// The ranks of those in between.
    pub passed: Range<u32>,
}

type Positions = BTreeMap<Key, (Offset, u64)>;

/// Calls `visit` for every step that does not simply go on at the next offset.
///
/// A process's position in a partition is forgotten when it assigns another set without that
/// partition, seeks to the beginning, subscribes, or is rebalanced: the next read may then begin
/// anywhere.
pub(super) fn walk<'a>(model: &'a Model<'_>, mut visit: impl FnMut(Step<'a>)) {
    let mut processes: HashMap<Process, Positions> = HashMap::new();
    let mut free = BTreeSet::new();
    for (_, entry) in model.ok_entries() {
        match entry.function {
            Function::Send
            | Function::Latest
            | Function::Digest
            | Function::Commit
            | Function::Committed
            | Function::Trim
            | Function::Earliest
            | Function::Delete
            | Function::Compacted => {}
            Function::Assign | Function::Subscribe => {
                if model.free_subscribers && entry.function == Function::Subscribe {
                    free.insert(entry.process);
                }
                keep_assigned(processes.entry(entry.process).or_default(), &entry);
            }
            Function::Poll | Function::Transaction => {
                let positions = processes.entry(entry.process).or_default();
                if entry.rebalanced || free.contains(&entry.process) {
                    positions.clear();
                }
                follow(model, positions, &entry, &mut visit);
            }
        }
    }
}

fn keep_assigned(positions: &mut Positions, entry: &Entry<'_>) {
    if entry.function == Function::Subscribe || entry.seek_to_beginning {
        positions.clear();
        return;
    }
    let assigned: BTreeSet<Key> = entry.actions.iter().map(Action::key).collect();
    positions.retain(|key, _| assigned.contains(key));
}

fn follow<'a>(
    model: &'a Model<'_>,
    positions: &mut Positions,
    entry: &Entry<'_>,
    visit: &mut impl FnMut(Step<'a>),
) {
    for action in entry.actions {
        let Action::Read {
            key, offset: to, ..
        } = *action
        else {
            continue;
        };
        let Some((from, seen_at)) = positions.insert(key, (to, entry.index)) else {
            continue;
        };
        // The next offset is the next record whatever the ranks are: the common case.
        if from.0.checked_add(1) == Some(to.0) {
            continue;
        }
        let Some(partition) = model.partition(key) else {
            continue;
        };
        let (Some(before), Some(after)) = (partition.rank(from), partition.rank(to)) else {
            continue;
        };
        visit(Step {
            partition,
            process: entry.process,
            entries: [seen_at, entry.index],
            from,
            to,
            ranks: i64::from(after) - i64::from(before),
            passed: before.saturating_add(1)..after,
        });
    }
}
