//! Unseen: acknowledged, and by the end of the history polled by nobody.
//!
//! Whether that is an error depends on whether the history ends with the final reads. Nobody has to have
//! seen what was to be deleted, or was replaced by a later record of its key.

use crate::model::Model;
use crate::verdict::{Collector, Finding};

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    for partition in &model.partitions {
        for (value, facts) in partition.values.iter().zip(&partition.facts) {
            let gone = partition.gone.deleted || partition.may_be_gone(facts);
            if facts.acknowledged && !facts.read && !gone {
                out.add(|| {
                    let key = partition.key;
                    let detail =
                        format!("partition {key}: value {value} was acknowledged and never polled");
                    let entries = vec![model.index(facts.first_invoke)];
                    Finding::new(key, entries, detail).value(*value)
                });
            }
        }
    }
}
