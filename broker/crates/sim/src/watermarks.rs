//! How far each replica says it is, by its checkpoints: nothing goes back, and whoever is equally far
//! holds the same.
//!
//! A checkpoint is looked at when it takes its predecessor's place. In one life of a process neither
//! the place in the log nor the first nor the next offset of a partition goes back, and what was
//! durable once is a bound for all lives. The state of a shard, and the image of the cluster, are
//! functions of the log: two checkpoints at the same entry hold the same bytes. And what a state says of
//! where a partition ends, the files that are named with it reach.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_env::{Call, CallKind, SimDisk};
use highwater_proto::internal::ShardSnapshot;
use highwater_proto::{Offset, PartitionId, TopicId, TopicPartition};
use highwater_segment::{Checkpoint, PartitionManifest};
use prost::Message;

/// Where checkpoints lie: those of shards, each under its number, and that of the metadata group.
const SHARDS: &str = "/data/shards";
const METADATA: &str = "/data/metadata";

/// A partition, and the move that brought it to its shard.
type Placed = (TopicPartition, u64);

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    /// The last command that it covers, of a shard.
    position: u64,
    /// First and next offset.
    partitions: BTreeMap<Placed, (Offset, Offset)>,
    /// The place in the log, and who votes there.
    place: Bytes,
    /// Of the state, which every replica has alike at that place.
    state: u64,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    last: Option<Mark>,
    durable: Option<Mark>,
}

/// What all nodes have said so far.
#[derive(Debug, Default)]
pub struct Watermarks {
    seen: BTreeMap<(&'static str, PathBuf), Seen>,
    /// By checkpoint and place in the log: who was there first, and with which state.
    states: BTreeMap<(PathBuf, Bytes), (&'static str, u64)>,
    looked_at: u64,
    compared: u64,
}

impl Mark {
    fn of(path: &Path, content: Vec<u8>) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::decode(&Bytes::from(content))?;
        let mut state = DefaultHasher::new();
        state.write(&checkpoint.state);
        let mut mark = Self {
            position: 0,
            partitions: BTreeMap::new(),
            place: checkpoint.raft_meta,
            state: state.finish(),
        };
        if path.starts_with(SHARDS) {
            let snapshot = ShardSnapshot::decode(checkpoint.state)?;
            mark.position = snapshot.position.unwrap_or(0);
            mark.partitions = bounds(&snapshot, &checkpoint.partitions)?;
        }
        Ok(mark)
    }

    /// Why it cannot come after another one.
    fn check_after(&self, before: &Self) -> anyhow::Result<()> {
        let (from, to) = (before.position, self.position);
        ensure!(to >= from, "it went back from entry {from} to {to}");
        for ((tp, arrival), (start, end)) in &before.partitions {
            let Some((start_now, end_now)) = self.partitions.get(&(*tp, *arrival)) else {
                continue;
            };
            ensure!(
                start_now >= start && end_now >= end,
                "{tp} went back from {start}..{end} to {start_now}..{end_now}"
            );
        }
        Ok(())
    }
}

/// Where the partitions of a shard begin and end, as readers are told: the files that are named must hold that.
fn bounds(
    snapshot: &ShardSnapshot,
    files: &[(TopicPartition, PartitionManifest)],
) -> anyhow::Result<BTreeMap<Placed, (Offset, Offset)>> {
    let held = files.iter().map(|(tp, manifest)| {
        let placed = (*tp, manifest.arrival);
        (placed, (manifest.log_start, manifest.next_offset))
    });
    let held: BTreeMap<Placed, (Offset, Offset)> = held.collect();
    let mut bounds = BTreeMap::new();
    // Of what is on its way here, each replica has as much as it has fetched.
    for shown in snapshot.partitions.iter().filter(|one| !one.importing) {
        let tp = TopicPartition::new(TopicId(shown.topic), PartitionId(shown.partition));
        let (start, end) = (Offset(shown.log_start), Offset(shown.next_offset));
        ensure!(start <= end, "{tp} begins at {start}, behind its end {end}");
        // They hold more where another checkpoint was being taken over, and that was given up.
        let found = held.get(&(tp, shown.arrival));
        ensure!(
            found.is_some_and(|(_, held_to)| *held_to >= end),
            "{tp} is {start}..{end}, and its files hold {found:?}"
        );
        bounds.insert((tp, shown.arrival), (start, end));
    }
    Ok(bounds)
}

/// The checkpoint that a temporary file becomes, if it is one.
fn becomes(temporary: &Path) -> Option<PathBuf> {
    let dir = temporary.parent()?;
    if dir == Path::new(SHARDS) {
        Some(temporary.with_extension("checkpoint"))
    } else if dir == Path::new(METADATA) {
        Some(temporary.with_extension(""))
    } else {
        None
    }
}

impl Watermarks {
    /// Takes note of a call of a node's process.
    ///
    /// # Errors
    /// A checkpoint that says less than one before it, or otherwise than another replica's.
    pub fn note(&mut self, node: &'static str, disk: &SimDisk, call: &Call) -> anyhow::Result<()> {
        if call.failed {
            return Ok(());
        }
        match call.kind {
            CallKind::Rename => {
                if let Some(path) = becomes(&call.path)
                    // It may be gone again.
                    && let Ok(content) = disk.content(&path)
                {
                    let said =
                        Mark::of(&path, content).and_then(|mark| self.take(node, &path, mark));
                    said.with_context(|| format!("the checkpoint {} of {node}", path.display()))?;
                }
            }
            CallKind::RemoveFile => {
                self.seen.remove(&(node, call.path.clone()));
            }
            CallKind::SyncDir => {
                for ((_, path), seen) in self.of(node) {
                    if path.parent() == Some(&call.path) {
                        seen.durable.clone_from(&seen.last);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn of(&mut self, node: &str) -> impl Iterator<Item = (&(&'static str, PathBuf), &mut Seen)> {
        self.seen
            .iter_mut()
            .filter(move |((name, _), _)| *name == node)
    }

    fn take(&mut self, node: &'static str, path: &Path, mark: Mark) -> anyhow::Result<()> {
        self.looked_at += 1;
        let seen = self.seen.entry((node, path.to_owned())).or_default();
        for before in [&seen.durable, &seen.last].into_iter().flatten() {
            mark.check_after(before)?;
        }
        let (position, state) = (mark.position, mark.state);
        let place = (path.to_owned(), mark.place.clone());
        seen.last = Some(mark);
        let (other, theirs) = *self.states.entry(place).or_insert((node, state));
        self.compared += u64::from(other != node);
        ensure!(
            theirs == state,
            "its state of entry {position} is otherwise than that of {other}"
        );
        Ok(())
    }

    /// A node has lost its power: what was not durable may be gone.
    pub fn power_lost(&mut self, node: &str) {
        for (_, seen) in self.of(node) {
            seen.last.clone_from(&seen.durable);
        }
    }
    /// A node has lost its disk.
    pub fn wiped(&mut self, node: &str) {
        self.seen.retain(|(name, _), _| *name != node);
    }

    /// Checkpoints that were looked at, and those that another replica had at the same entry.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.looked_at, self.compared)
    }
}

#[cfg(test)]
#[path = "watermarks_tests.rs"]
mod tests;
