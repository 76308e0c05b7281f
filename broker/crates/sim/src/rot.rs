//! What lies in the segment files of a simulated disk: rots, and is compared between replicas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use bytes::Bytes;
use highwater_env::SimDisk;
use highwater_proto::batch::{RecordBatch, split_batches};
use highwater_proto::{TopicId, TopicPartition};
use highwater_segment::partition_dir;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::settings::SEGMENTS;
use crate::trace;

/// Bits that flip at once, at most.
const MOST_FLIPS: usize = 4;

/// The segment files of a disk.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    files.filter(is_segment).collect()
}

/// The whole batches that a segment file begins with. What comes behind them is reserved space, or
/// a write that was cut off.
fn batches(disk: &SimDisk, path: &Path) -> Vec<RecordBatch> {
    whole(Bytes::from(disk.content(path).unwrap_or_default()))
}

/// The whole batches that some bytes begin with.
#[must_use]
pub fn whole(bytes: Bytes) -> Vec<RecordBatch> {
    split_batches(bytes).map_while(Result::ok).collect()
}

fn len(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.bytes().len() as u64).sum()
}

/// Flips bits of records and of indexes; how many.
pub fn rot(disk: &SimDisk, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut places: Vec<(PathBuf, u64)> = Vec::new();
    for path in segments(disk) {
        let len = len(&batches(disk, &path));
        places.push((path, len));
    }
    let is_index = |path: &PathBuf| {
        let end = path.extension().unwrap_or_default();
        end == "index" || end == "timeindex"
    };
    places.extend(disk.files().into_iter().filter(|(path, _)| is_index(path)));
    places.retain(|(_, len)| *len > 0);
    let mut flipped = 0;
    for _ in 0..rng.random_range(1..=MOST_FLIPS) {
        if let Some((path, len)) = places.choose(&mut rng) {
            let (at, bit) = (rng.random_range(0..*len), rng.random_range(0..8));
            if disk.flip_bit(path, at, bit).is_ok() {
                trace::note("rot", "", format_args!(" {} {at} {bit}", path.display()));
                flipped += 1;
            }
        }
    }
    flipped
}

/// Batches by partition directory and first offset.
type Log = BTreeMap<(PathBuf, u64), RecordBatch>;

/// Of all partitions but those of one topic.
fn log(disk: &SimDisk, without: Option<TopicId>) -> Log {
    let mut log = Log::new();
    let left_out = without.map(|topic| format!("{topic}-"));
    for path in segments(disk) {
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let name = dir.file_name().and_then(|name| name.to_str());
        let is_left_out = left_out
            .as_ref()
            .zip(name)
            .is_some_and(|(out, name)| name.starts_with(out));
        if is_left_out {
            continue;
        }
        for batch in batches(disk, &path) {
            log.insert((dir.clone(), batch.header().base_offset.0), batch);
        }
    }
    log
}

/// What must lie on the disks of the brokers that have replicas of a partition.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The partition, and the move that brought it to its shard.
    pub log: (TopicPartition, u64),
    /// The brokers.
    pub replicas: Vec<u32>,
    /// Everything from here on; absent: from wherever each begins.
    pub from: Option<u64>,
    /// To this offset at least, and no replica ends elsewhere than another.
    pub end: u64,
}

/// How the replicas are.
#[derive(Debug)]
pub enum Compared {
    /// They hold the same; so many batches were compared.
    Alike(usize),
    /// What one does not hold yet: it is to be waited for.
    Lacks(String),
}

/// Compares what nodes have in the same places. Only committed batches get there, so even what a
/// crash has left behind a file's end is the same everywhere. What is expected must be there besides.
/// One topic is left out: what is compacted lies there before and after it was.
///
/// # Errors
/// The first difference.
pub fn compare(
    disks: &[(&'static str, SimDisk)],
    without: Option<TopicId>,
    expected: &[Expected],
) -> anyhow::Result<Compared> {
    let logs: Vec<(&str, Log)> = disks
        .iter()
        .map(|(name, disk)| (*name, log(disk, without)))
        .collect();
    let mut compared = 0;
    for (at, (name, log)) in logs.iter().enumerate() {
        for (other, others) in logs.iter().skip(at + 1) {
            for ((dir, base), batch) in log {
                let before = others.range(..=(dir.clone(), *base)).next_back();
                let Some(((found_dir, found_base), found)) = before else {
                    continue;
                };
                let end = found_base + u64::from(found.header().last_offset_delta);
                if found_dir != dir || end < *base {
                    continue;
                }
                ensure!(
                    found_base == base && found.bytes() == batch.bytes(),
                    "{name} and {other} have different bytes in {} at offset {base}",
                    dir.display()
                );
                compared += 1;
            }
        }
    }
    let lacking = expected.iter().find_map(|one| lacks(&logs, one));
    Ok(lacking.map_or(Compared::Alike(compared), Compared::Lacks))
}

/// What is not there that must be, of one partition.
fn lacks(logs: &[(&str, Log)], expected: &Expected) -> Option<String> {
    let dir = partition_dir(Path::new(SEGMENTS), expected.log);
    let mut ends = BTreeMap::new();
    for broker in &expected.replicas {
        let at = (*broker as usize).checked_sub(1);
        let Some((name, log)) = at.and_then(|at| logs.get(at)) else {
            return Some(format!("there is no broker {broker}"));
        };
        let held = log.range((dir.clone(), 0)..=(dir.clone(), u64::MAX));
        let mut held = held.peekable();
        let begins = held.peek().map(|((_, base), _)| *base);
        let from = expected.from.or(begins).unwrap_or(0);
        let mut next = from;
        for ((_, base), batch) in held {
            // What was trimmed may still be there.
            if *base > next {
                break;
            }
            next = next.max(base + u64::from(batch.header().last_offset_delta) + 1);
        }
        if next < expected.end {
            let (dir, end) = (dir.display(), expected.end);
            return Some(format!(
                "{name} holds {from}..{next} of {dir}, and lacks what lies before {end}"
            ));
        }
        ends.insert(next, *name);
    }
    if ends.len() > 1 {
        return Some(format!("replicas of {} end at {ends:?}", dir.display()));
    }
    None
}

#[cfg(test)]
#[path = "rot_tests.rs"]
mod tests;
