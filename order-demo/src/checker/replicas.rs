//! Invariant 7: every copy of a partition holds the same records.

use std::collections::BTreeMap;

use super::{Evidence, Verdict, Violation};
use crate::evidence::ReplicaRead;

pub(super) fn check(evidence: &Evidence, out: &mut Verdict) {
    if evidence.intake.is_none() {
        // Without a broker there are no replicas.
        out.not_applicable.push(7);
        return;
    }
    out.looked_at(7, evidence.replicas.len());
    let mut first: BTreeMap<(&str, u32), &ReplicaRead> = BTreeMap::new();
    for copy in &evidence.replicas {
        out.replica_copies += 1;
        let known = *first.entry((&copy.topic, copy.partition)).or_insert(copy);
        if known.digest == copy.digest {
            continue;
        }
        out.add(Violation::ReplicasDiffer, || {
            format!(
                "{}/{}: broker {} holds {} records to offset {}, broker {} holds {} to {}{}",
                copy.topic,
                copy.partition,
                known.broker,
                known.digest.records,
                known.digest.end,
                copy.broker,
                copy.digest.records,
                copy.digest.end,
                if known.digest.end == copy.digest.end {
                    ", with other content"
                } else {
                    ""
                },
            )
        });
    }
}
