//! Read before send: a poll had returned a value before its send began.

use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for seen in &partition.seen {
            let facts = partition.fact(seen.value);
            let read_at = model.ops[seen.op as usize].complete;
            if facts.first_invoke == NONE || read_at >= facts.first_invoke {
                continue;
            }
            out.add(|| {
                let (key, value) = (partition.key, partition.value(seen.value));
                let detail =
                    format!("partition {key}: value {value} was read before its send began");
                let entries = vec![model.index(read_at), model.index(facts.first_invoke)];
                Finding::new(key, entries, detail)
                    .value(value)
                    .offset(partition.offset(seen.rank))
                    .process(model.process(seen.op))
            });
        }
    }
}
