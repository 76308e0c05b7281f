//! Poll skip: a reader went on further than to the next record that exists.
//!
//! Offsets that hold nothing are legal gaps: what counts is the rank among the offsets in use. Nor do
//! records count that were to be deleted, or that a later one of their key has replaced.

use super::positions;
use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    positions::walk(model, |step| {
        if step.ranks <= 1 || step.partition.all_may_be_gone(step.passed.clone()) {
            return;
        }
        out.add(|| {
            let key = step.partition.key;
            let detail = format!(
                "partition {key}: process {} went from offset {} to {}, over {} records",
                step.process,
                step.from,
                step.to,
                step.ranks - 1
            );
            Finding::new(key, step.entries.to_vec(), detail)
                .offset(step.to)
                .process(step.process)
        });
    });
}
