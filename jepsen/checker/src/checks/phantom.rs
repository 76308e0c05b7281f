//! Phantom: a value was read that nobody sent.

use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            if facts.read && facts.first_invoke == NONE {
                out.add(|| {
                    let key = partition.key;
                    let detail = format!("partition {key}: value {value} was read and never sent");
                    Finding::new(key, Vec::new(), detail).value(*value)
                });
            }
        }
    }
}
