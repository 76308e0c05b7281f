//! What compaction has left on the disks of a topic's replicas. Each does the work in its own time; once
//! all have done it, they must hold the same, and what the durable checkpoints name is what counts.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_env::SimDisk;
use highwater_proto::batch::RecordBatch;
use highwater_proto::{Offset, TopicPartition};
use highwater_segment::{Checkpoint, PartitionManifest, log_path, partition_dir};

use crate::board::Compacting;
use crate::clients::compacted::REPLICAS;
use crate::rot;
use crate::settings::SEGMENTS;

/// A partition as the durable checkpoint of one node has it.
struct Replica<'a> {
    node: &'static str,
    disk: &'a SimDisk,
    manifest: PartitionManifest,
}

type Replicas<'a> = BTreeMap<TopicPartition, Vec<Replica<'a>>>;

fn replicas<'a>(
    disks: &'a [(&'static str, SimDisk)],
    what: Compacting,
) -> anyhow::Result<Replicas<'a>> {
    let mut replicas = Replicas::new();
    for (node, disk) in disks {
        let files = disk.files().into_iter().map(|(path, _)| path);
        let is_checkpoint = |path: &Path| path.extension().is_some_and(|end| end == "checkpoint");
        for path in files.filter(|path| is_checkpoint(path)) {
            let content = Bytes::from(disk.content(&path)?);
            let checkpoint = Checkpoint::decode(&content);
            let checkpoint = checkpoint.with_context(|| format!("{node}: {}", path.display()))?;
            for (tp, manifest) in checkpoint.partitions {
                if tp.topic == what.topic {
                    let replica = Replica {
                        node,
                        disk,
                        manifest,
                    };
                    replicas.entry(tp).or_default().push(replica);
                }
            }
        }
    }
    Ok(replicas)
}

/// Whether all replicas of a topic that nobody writes to are compacted alike, and durably.
///
/// # Errors
/// A checkpoint that cannot be read.
pub fn settled(disks: &[(&'static str, SimDisk)], what: Compacting) -> anyhow::Result<bool> {
    let replicas = replicas(disks, what)?;
    let alike = |replicas: &Vec<Replica<'_>>| {
        let state = |replica: &Replica<'_>| {
            let PartitionManifest {
                log_start,
                next_offset,
                compacted,
                ..
            } = replica.manifest;
            (log_start, next_offset, compacted)
        };
        let first = replicas.first().map(state);
        let done = first.is_some_and(|(.., compacted)| compacted.generation > 0 || !what.surely);
        done && replicas.len() >= REPLICAS as usize
            && replicas.iter().all(|one| Some(state(one)) == first)
    };
    Ok(!replicas.is_empty() && replicas.values().all(alike))
}

impl Replica<'_> {
    /// The batches that lie at or above the log's start, by base offset.
    fn batches(&self, tp: TopicPartition) -> BTreeMap<Offset, RecordBatch> {
        let dir = partition_dir(Path::new(SEGMENTS), (tp, self.manifest.arrival));
        let mut batches = BTreeMap::new();
        for segment in &self.manifest.segments {
            let path = log_path(&dir, segment.base_offset, segment.version);
            let mut content = self.disk.content(&path).unwrap_or_default();
            content.truncate(usize::try_from(segment.len_bytes).unwrap_or(usize::MAX));
            for batch in rot::whole(content.into()) {
                let base = batch.header().base_offset;
                if base >= self.manifest.log_start {
                    batches.insert(base, batch);
                }
            }
        }
        batches
    }
}

/// Compares the replicas of a settled topic; how many batches. One that must have become smaller has.
///
/// # Errors
/// The first difference.
pub fn compare(disks: &[(&'static str, SimDisk)], what: Compacting) -> anyhow::Result<usize> {
    let mut compared = 0;
    for (tp, replicas) in replicas(disks, what)? {
        let Some((first, others)) = replicas.split_first() else {
            continue;
        };
        let ours = first.batches(tp);
        for other in others {
            let theirs = other.batches(tp);
            let differing = ours.keys().chain(theirs.keys()).find(|base| {
                let bytes = |log: &BTreeMap<Offset, RecordBatch>| {
                    log.get(*base).map(|batch| batch.bytes().clone())
                };
                bytes(&ours) != bytes(&theirs)
            });
            ensure!(
                differing.is_none(),
                "{} and {} are compacted alike and differ in {tp} at offset {differing:?}",
                first.node,
                other.node
            );
            compared += theirs.len();
        }
        let held = ours
            .values()
            .map(|batch| u64::from(batch.header().record_count));
        let (held, end) = (held.sum::<u64>(), first.manifest.next_offset.0);
        ensure!(
            !what.surely || held < end,
            "{tp} has not become smaller: {held} records below {end}"
        );
    }
    Ok(compared)
}

#[cfg(test)]
#[path = "compactions_tests.rs"]
mod tests;
