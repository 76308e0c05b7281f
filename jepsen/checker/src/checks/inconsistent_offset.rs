//! Inconsistent offset: two readers, or a reader and an acknowledgement, disagree about what lies
//! at one offset.

use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for pair in partition.log.windows(2) {
            let [(rank, value), (other_rank, other)] = *pair else {
                continue;
            };
            if rank != other_rank {
                continue;
            }
            out.add(|| {
                let (key, offset) = (partition.key, partition.offset(rank));
                let (value, other) = (partition.value(value), partition.value(other));
                let detail =
                    format!("partition {key}: offset {offset} holds both {value} and {other}");
                let entries = model.witnesses(key, |at, _| at == offset);
                Finding::new(key, entries, detail)
                    .offset(offset)
                    .value(other)
            });
        }
    }
}
