//! How far each running replica is, as it sees it in memory: its places are in order, and in one life of a replica
//! nothing goes back.

use std::collections::BTreeMap;

use anyhow::ensure;
use highwater_broker::node::marks::{PartitionMarks, ReplicaMarks};
use highwater_proto::ShardId;

/// What was seen last of each replica of each node.
#[derive(Debug, Default)]
pub struct Marks {
    last: BTreeMap<(&'static str, ShardId), ReplicaMarks>,
    looked_at: u64,
}

impl Marks {
    /// Looks at a node's replicas.
    ///
    /// # Errors
    /// One that is not in order, or has gone back.
    pub fn look(&mut self, node: &'static str, now: Vec<ReplicaMarks>) -> anyhow::Result<()> {
        for replica in now {
            self.looked_at += 1;
            let (key, shard) = ((node, replica.shard), replica.shard);
            in_order(&replica).map_err(|error| error.context(format!("{node}, group {shard}")))?;
            let before = self.last.get(&key);
            if let Some(before) = before.filter(|one| one.identity.ptr_eq(&replica.identity)) {
                let forward = goes_forward(before, &replica);
                forward.map_err(|error| error.context(format!("{node}, group {shard}")))?;
            }
            self.last.insert(key, replica);
        }
        Ok(())
    }
    /// Replicas that were looked at, each as often as it was.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.looked_at
    }
}

fn in_order(replica: &ReplicaMarks) -> anyhow::Result<()> {
    let ReplicaMarks {
        purged,
        checkpointed,
        applied,
        committed,
        last_log,
        ..
    } = replica;
    ensure!(
        purged <= checkpointed
            && checkpointed <= applied
            && applied <= committed
            && committed <= last_log,
        "purged to {purged}, checkpointed to {checkpointed}, applied to {applied}, committed to {committed}, \
         log to {last_log}"
    );
    for PartitionMarks {
        tp,
        log_start,
        high_watermark,
        ..
    } in &replica.partitions
    {
        ensure!(
            log_start <= high_watermark,
            "{tp} begins at {log_start}, behind its high watermark {high_watermark}"
        );
    }
    Ok(())
}

fn goes_forward(before: &ReplicaMarks, now: &ReplicaMarks) -> anyhow::Result<()> {
    let places = |of: &ReplicaMarks| [of.purged, of.checkpointed, of.applied, of.committed];
    let pairs = places(before).into_iter().zip(places(now));
    let names = ["purged", "checkpointed", "applied", "committed"];
    for (what, (before, now)) in names.into_iter().zip(pairs) {
        ensure!(now >= before, "{what} went back from {before} to {now}");
    }
    // What is committed is never cut.
    ensure!(
        now.last_log >= before.committed,
        "the log ends at {} and was committed to {}",
        now.last_log,
        before.committed
    );
    let known = |of: &PartitionMarks| (of.tp, of.arrival);
    let seen: BTreeMap<_, _> = before.partitions.iter().map(|of| (known(of), of)).collect();
    for now in &now.partitions {
        let Some(before) = seen.get(&known(now)) else {
            continue;
        };
        ensure!(
            now.log_start >= before.log_start && now.high_watermark >= before.high_watermark,
            "{} went back from {}..{} to {}..{}",
            now.tp,
            before.log_start,
            before.high_watermark,
            now.log_start,
            now.high_watermark
        );
    }
    Ok(())
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
