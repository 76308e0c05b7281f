//! Over-trim: records are gone that nobody had asked to delete.

use std::collections::BTreeMap;

use crate::history::{Action, Key, Kind, Offset};
use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    // Whoever asked may ask for less later: what was asked for once counts.
    let mut asked: BTreeMap<Key, Offset> = BTreeMap::new();
    for entry in model.history.iter() {
        for action in entry.actions {
            let (key, start) = match *action {
                Action::Trim { key, before, start } => {
                    let highest = asked.entry(key).or_default();
                    *highest = (*highest).max(before);
                    (key, start)
                }
                Action::Earliest { key, start } => (key, start),
                _ => continue,
            };
            let Some(start) = start.filter(|_| entry.kind == Kind::Ok) else {
                continue;
            };
            let bound = asked.get(&key).copied().unwrap_or_default();
            if start <= bound {
                continue;
            }
            out.add(|| {
                let detail = format!(
                    "partition {key}: it begins at offset {start}, and nobody asked to delete \
                     more than what lies below {bound}"
                );
                Finding::new(key, vec![entry.index], detail).offset(start)
            });
        }
    }
}
