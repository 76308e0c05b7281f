//! Revenant: a value was read where nobody sent it, and it had been sent to a topic that was deleted.

use std::collections::HashMap;

use crate::history::{Key, Value};
use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    let deleted = model.partitions.iter().filter(|p| p.gone.deleted);
    let sent = deleted.flat_map(|partition| {
        let values = partition.values.iter().zip(&partition.facts);
        let sent = values.filter(|(_, facts)| facts.first_invoke != NONE);
        sent.map(|(value, _)| (*value, partition.key))
    });
    let sent: HashMap<Value, Key> = sent.collect();
    if sent.is_empty() {
        return;
    }
    for partition in &model.partitions {
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            let Some(before) = sent.get(value) else {
                continue;
            };
            if !facts.read || facts.first_invoke != NONE {
                continue;
            }
            out.add(|| {
                let key = partition.key;
                let detail = format!(
                    "partition {key}: value {value} was read, which was sent to partition {before} \
                     of a deleted topic"
                );
                Finding::new(key, model.witnesses(key, |_, seen| seen == *value), detail)
                    .value(*value)
            });
        }
    }
}
