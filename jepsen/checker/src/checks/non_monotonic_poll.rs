//! Non-monotonic poll: a reader returned to a record it had passed, or read one twice.

use super::positions;
use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    positions::walk(model, |step| {
        if step.ranks >= 1 {
            return;
        }
        out.add(|| {
            let key = step.partition.key;
            let detail = format!(
                "partition {key}: process {} went back from offset {} to {}",
                step.process, step.from, step.to
            );
            Finding::new(key, step.entries.to_vec(), detail)
                .offset(step.to)
                .process(step.process)
        });
    });
}
