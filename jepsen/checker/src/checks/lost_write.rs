//! Lost write: readers got past a committed value, and none of them saw it.
//!
//! The bound is the highest place that readers certainly reached: of all values read, the highest
//! first index. A value is past it only when even its last index is not above the bound, so a
//! duplicate can never make an unlost write look lost.

use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        let reached = partition
            .facts
            .iter()
            .filter(|facts| facts.read && facts.first_rank != NONE)
            .map(|facts| facts.first_rank)
            .max();
        let Some(reached) = reached else { continue };
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            let placed = facts.last_rank != NONE && facts.last_rank <= reached;
            if !(facts.committed && placed && !facts.read) || partition.may_be_gone(facts) {
                continue;
            }
            out.add(|| {
                let key = partition.key;
                let (offset, bound) =
                    (partition.offset(facts.last_rank), partition.offset(reached));
                let detail = format!(
                    "partition {key}: value {value} was acknowledged at offset {offset}; \
                     readers reached offset {bound} and none saw it"
                );
                let entries = vec![model.index(facts.first_invoke)];
                Finding::new(key, entries, detail)
                    .value(*value)
                    .offset(offset)
            });
        }
    }
}
