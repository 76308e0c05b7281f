//! Stale latest: asked for the end of a partition after an acknowledgement, the leader named one
//! that does not reach the acknowledged record.

use std::collections::HashMap;

use crate::history::{Action, Entry, Key, Kind, Offset, Process};
use crate::model::Model;
use crate::verdict::{Collector, Finding};

/// The highest acknowledged offset of a partition and the entry that acknowledged it.
type Acknowledged = Option<(Offset, u64)>;

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    let mut acknowledged: Vec<Acknowledged> = vec![None; model.partitions.len()];
    // What each open request must reach. A process has one operation open at a time.
    let mut bounds: HashMap<Process, Vec<(Key, Acknowledged)>> = HashMap::new();
    for entry in model.history.iter() {
        match entry.kind {
            Kind::Invoke => {
                let asked = latest_keys(model, &entry, &acknowledged);
                if !asked.is_empty() {
                    bounds.insert(entry.process, asked);
                }
            }
            Kind::Ok => {
                if let Some(asked) = bounds.remove(&entry.process) {
                    compare(&entry, &asked, out);
                }
                note_acknowledged(model, &entry, &mut acknowledged);
            }
            Kind::Fail | Kind::Info => {
                bounds.remove(&entry.process);
            }
        }
    }
}

fn latest_keys(
    model: &Model<'_>,
    entry: &Entry<'_>,
    acknowledged: &[Acknowledged],
) -> Vec<(Key, Acknowledged)> {
    let asked = entry
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Latest { .. }));
    asked
        .filter_map(|action| {
            let place = model.partition_number(action.key())?;
            Some((action.key(), acknowledged[place]))
        })
        .collect()
}

fn note_acknowledged(model: &Model<'_>, entry: &Entry<'_>, acknowledged: &mut [Acknowledged]) {
    for action in entry.actions {
        if let Action::Send {
            key,
            offset: Some(offset),
            ..
        } = *action
            && let Some(place) = model.partition_number(key)
        {
            let highest = &mut acknowledged[place];
            if highest.is_none_or(|(known, _)| offset > known) {
                *highest = Some((offset, entry.index));
            }
        }
    }
}

fn compare(entry: &Entry<'_>, asked: &[(Key, Acknowledged)], out: &mut Collector) {
    for action in entry.actions {
        let Action::Latest {
            key,
            end: Some(end),
        } = *action
        else {
            continue;
        };
        let bound = asked
            .iter()
            .find(|(known, _)| *known == key)
            .and_then(|(_, bound)| *bound);
        let Some((offset, acknowledged_at)) = bound else {
            continue;
        };
        if end > offset {
            continue;
        }
        out.add(|| {
            let detail = format!(
                "partition {key}: offset {offset} was acknowledged before process {} asked for \
                 the end, and was told {end}",
                entry.process
            );
            Finding::new(key, vec![acknowledged_at, entry.index], detail)
                .offset(offset)
                .process(entry.process)
        });
    }
}
