//! Trim regress: records came back that had been deleted.
//!
//! Where a partition begins, once told, is a lower bound for every answer to a request that begins
//! later, and for everything that a process reads which assigns the partition later.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Action, Entry, Function, Key, Kind, Offset, Process};
use crate::model::Model;
use crate::verdict::{Collector, Finding};

/// The highest start that was told, and the entry that shows it.
type Starts = BTreeMap<Key, (Offset, u64)>;

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    let mut told = Starts::new();
    // What an open request, or a process that assigned, must not go below.
    let mut requests: HashMap<Process, Starts> = HashMap::new();
    let mut readers: HashMap<Process, Starts> = HashMap::new();
    for entry in model.history.iter() {
        match (entry.kind, entry.function) {
            (Kind::Invoke, Function::Assign | Function::Subscribe) if !told.is_empty() => {
                readers.insert(entry.process, told.clone());
            }
            (Kind::Invoke, Function::Trim | Function::Earliest) => {
                requests.insert(entry.process, told.clone());
            }
            (Kind::Ok, Function::Trim | Function::Earliest) => {
                let bounds = requests.remove(&entry.process).unwrap_or_default();
                for action in entry.actions {
                    answer(&entry, action, &bounds, (&mut told, out));
                }
            }
            (Kind::Ok, Function::Poll) => {
                if let Some(bounds) = readers.get(&entry.process) {
                    for action in entry.actions {
                        read(&entry, action, bounds, out);
                    }
                }
            }
            _ => {}
        }
    }
}

fn answer(
    entry: &Entry<'_>,
    action: &Action,
    bounds: &Starts,
    (told, out): (&mut Starts, &mut Collector),
) {
    let (key, start) = match *action {
        Action::Trim { key, start, .. } | Action::Earliest { key, start } => (key, start),
        _ => return,
    };
    let Some(start) = start else { return };
    if let Some((before, shown_by)) = bounds.get(&key)
        && start < *before
    {
        out.add(|| {
            let detail =
                format!("partition {key}: it began at offset {before} and later at {start}");
            Finding::new(key, vec![*shown_by, entry.index], detail).offset(start)
        });
    }
    let highest = told.entry(key).or_insert((start, entry.index));
    if start > highest.0 {
        *highest = (start, entry.index);
    }
}

fn read(entry: &Entry<'_>, action: &Action, bounds: &Starts, out: &mut Collector) {
    let Action::Read { key, offset, value } = *action else {
        return;
    };
    if let Some((start, shown_by)) = bounds.get(&key)
        && offset < *start
    {
        out.add(|| {
            let process = entry.process;
            let detail = format!(
                "partition {key}: process {process} assigned it when it began at offset {start}, \
                 and read offset {offset}"
            );
            Finding::new(key, vec![*shown_by, entry.index], detail)
                .value(value)
                .offset(offset)
                .process(process)
        });
    }
}
