//! Aborted read: a value was read whose every send had certainly failed.

use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            if facts.read && facts.first_invoke != NONE && !facts.possible {
                out.add(|| {
                    let key = partition.key;
                    let detail =
                        format!("partition {key}: value {value} was read although its send failed");
                    let entries = vec![model.index(facts.first_invoke)];
                    Finding::new(key, entries, detail).value(*value)
                });
            }
        }
    }
}
