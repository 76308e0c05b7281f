//! Replica divergence: two replicas hold different records below the same offset.

use std::collections::HashMap;

use crate::history::{Action, Hash, Key, Offset};
use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    // What the first replica that told about a prefix had in it, and the entry that says so.
    let mut known: HashMap<(Key, Offset), (Hash, u32, u64)> = HashMap::new();
    for (_, entry) in model.ok_entries() {
        for action in entry.actions {
            let Action::Digest {
                key,
                replica,
                end,
                hash: Some(hash),
            } = *action
            else {
                continue;
            };
            let first = known
                .entry((key, end))
                .or_insert((hash, replica, entry.index));
            let (first_hash, first_replica, first_entry) = *first;
            if first_hash == hash {
                continue;
            }
            out.add(|| {
                let detail = format!(
                    "partition {key}: replicas {first_replica} and {replica} hold different \
                     records below offset {end}"
                );
                Finding::new(key, vec![first_entry, entry.index], detail).offset(end)
            });
        }
    }
}
