//! Precommitted read: an operation polled what it was itself still sending.

use std::collections::BTreeSet;

use crate::history::Action;
use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for (position, entry) in model.ok_entries() {
        let sends: BTreeSet<_> = entry
            .actions
            .iter()
            .filter_map(|action| match *action {
                Action::Send { key, value, .. } => Some((key, value)),
                _ => None,
            })
            .collect();
        if sends.is_empty() {
            continue;
        }
        for action in entry.actions {
            let Action::Read { key, value, offset } = *action else {
                continue;
            };
            if sends.contains(&(key, value)) {
                out.add(|| {
                    let detail = format!(
                        "partition {key}: process {} read value {value} in the operation that \
                         sends it",
                        entry.process
                    );
                    let entries = model.indexes(model.op_at[position as usize]);
                    Finding::new(key, entries, detail)
                        .value(value)
                        .offset(offset)
                        .process(entry.process)
                });
            }
        }
    }
}
