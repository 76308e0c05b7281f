//! Duplicate: one value lies at two offsets, although every send used a fresh one.

use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            // Both are `NONE` for a value without a place.
            if facts.first_rank == facts.last_rank {
                continue;
            }
            out.add(|| {
                let key = partition.key;
                let (first, last) = (
                    partition.offset(facts.first_rank),
                    partition.offset(facts.last_rank),
                );
                let detail = format!(
                    "partition {key}: value {value} lies at offset {first} and at offset {last}"
                );
                let entries = model.witnesses(key, |_, seen| seen == *value);
                Finding::new(key, entries, detail)
                    .value(*value)
                    .offset(last)
            });
        }
    }
}
