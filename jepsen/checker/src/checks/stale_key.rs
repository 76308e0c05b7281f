//! Stale key: a reader went through a compacted partition from its beginning and past the latest
//! record of a key, and found an older one of that key in its place, or none.
//!
//! The latest of a key is the acknowledged one at the highest offset, if nothing of that key lies
//! beyond it. Where it is a tombstone, or one that nobody has seen may have followed, finding none is
//! legal and finding an older one is not. Only what was acknowledged before the reader began counts.

use std::collections::{BTreeMap, HashMap};

use crate::gone::Compacted;
use crate::history::{Action, Entry, Function, Key, Kind, Offset, Process, Value};
use crate::model::{Model, Partition};
use crate::verdict::{Collector, Finding};

/// What one reader found of a partition.
#[derive(Default)]
struct Scan {
    /// How far it came.
    reached: Option<Offset>,
    /// The last of each record key.
    last: HashMap<i64, Offset>,
    /// The entry that shows how far it came.
    entry: u64,
}

struct Reader {
    /// The index of its assignment.
    began: u64,
    scans: BTreeMap<Key, Scan>,
}

/// The latest record of a key.
struct Latest {
    value: Value,
    offset: Offset,
    /// The index at which it was known to be stored; none: nobody was told.
    acknowledged: Option<u64>,
}

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    let compacted = |p: &Partition| p.gone.compacted.map(|c| (p.key, latest(model, p, c)));
    let latest: BTreeMap<Key, HashMap<i64, Latest>> =
        model.partitions.iter().filter_map(compacted).collect();
    if latest.is_empty() {
        return;
    }
    let mut readers: HashMap<Process, Reader> = HashMap::new();
    for entry in model.history.iter() {
        match (entry.kind, entry.function) {
            (Kind::Invoke, Function::Assign | Function::Subscribe) => {
                if let Some(done) = readers.remove(&entry.process) {
                    judge(model, &latest, &done, entry.process, out);
                }
                if entry.seek_to_beginning {
                    let began = entry.index;
                    let scans = BTreeMap::new();
                    readers.insert(entry.process, Reader { began, scans });
                }
            }
            (Kind::Ok, Function::Poll) => {
                if let Some(reader) = readers.get_mut(&entry.process) {
                    follow(model, reader, &entry);
                }
            }
            _ => {}
        }
    }
    let mut left: Vec<_> = readers.into_iter().collect();
    left.sort_unstable_by_key(|(process, _)| *process);
    for (process, reader) in left {
        judge(model, &latest, &reader, process, out);
    }
}

fn latest(model: &Model<'_>, partition: &Partition, compacted: Compacted) -> HashMap<i64, Latest> {
    let mut acknowledged: HashMap<u32, u64> = HashMap::new();
    for sent in partition.sent.iter().filter(|sent| sent.offset.is_some()) {
        let complete = model.ops[sent.op as usize].complete;
        acknowledged.insert(sent.value, model.index(complete));
    }
    let mut latest = HashMap::new();
    for (rank, number) in &partition.log {
        let value = partition.value(*number);
        let found = Latest {
            value,
            offset: partition.offset(*rank),
            acknowledged: acknowledged.get(number).copied(),
        };
        latest.insert(compacted.record_key(value), found);
    }
    latest
}

fn follow(model: &Model<'_>, reader: &mut Reader, entry: &Entry<'_>) {
    for action in entry.actions {
        let Action::Read { key, offset, value } = *action else {
            continue;
        };
        let compacted = model.partition(key).and_then(|p| p.gone.compacted);
        let Some(compacted) = compacted else { continue };
        let scan = reader.scans.entry(key).or_default();
        scan.reached = scan.reached.max(Some(offset));
        scan.entry = entry.index;
        scan.last.insert(compacted.record_key(value), offset);
    }
}

fn judge(
    model: &Model<'_>,
    latest: &BTreeMap<Key, HashMap<i64, Latest>>,
    reader: &Reader,
    process: Process,
    out: &mut Collector,
) {
    for (key, scan) in &reader.scans {
        let Some((partition, of_key)) = model.partition(*key).zip(latest.get(key)) else {
            continue;
        };
        let Some(compacted) = partition.gone.compacted else {
            continue;
        };
        let mut keys: Vec<_> = of_key.iter().collect();
        keys.sort_unstable_by_key(|(record_key, _)| **record_key);
        for (record_key, want) in keys {
            let known = want.acknowledged.is_some_and(|at| at < reader.began);
            let passed = scan.reached.is_some_and(|reached| reached >= want.offset);
            let found = scan.last.get(record_key).copied();
            let right = match found {
                Some(found) => found >= want.offset,
                None => {
                    compacted.is_tombstone(want.value)
                        || partition.gone.forgotten.contains(record_key)
                        || want.offset < partition.gone.trimmed
                }
            };
            if !known || !passed || right {
                continue;
            }
            out.add(|| {
                let found = found.map_or("nothing".to_owned(), |at| format!("offset {at}"));
                let detail = format!(
                    "partition {key}: the latest record of key {record_key} lies at offset {}, and \
                     process {process} found {found}",
                    want.offset
                );
                Finding::new(*key, vec![reader.began, scan.entry], detail)
                    .value(want.value)
                    .offset(want.offset)
                    .process(process)
            });
        }
    }
}
