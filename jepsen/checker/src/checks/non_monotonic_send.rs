//! Non-monotonic send: one process's records lie in another order than it sent them.
//!
//! A send that ended unknown counts too, at the place where a reader found its value.

use std::collections::HashMap;

use crate::history::Process;
use crate::model::{Model, NONE};
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        // Highest rank so far and the operation that landed there, by process.
        let mut landed: HashMap<Process, (u32, u32)> = HashMap::new();
        for sent in &partition.sent {
            let facts = partition.fact(sent.value);
            let own = sent.offset.and_then(|offset| partition.rank(offset));
            let rank = own.unwrap_or(facts.first_rank);
            if rank == NONE || !model.ops[sent.op as usize].committed {
                continue;
            }
            let process = model.process(sent.op);
            let (highest, by) = *landed.entry(process).or_insert((rank, NONE));
            if by != NONE && rank <= highest {
                out.add(|| {
                    let key = partition.key;
                    let (before, now) = (partition.offset(highest), partition.offset(rank));
                    let value = partition.value(sent.value);
                    let detail = format!(
                        "partition {key}: process {process} sent value {value} after a record at \
                         offset {before}, and it landed at {now}"
                    );
                    let mut entries = model.indexes(by);
                    entries.extend(model.indexes(sent.op));
                    Finding::new(key, entries, detail)
                        .value(value)
                        .offset(now)
                        .process(process)
                });
            } else {
                landed.insert(process, (rank, sent.op));
            }
        }
    }
}
