//! The power fails between any two calls to the disk while a partition is compacted: the latest value
//! of every key is there, whether the old files count or the new ones; doing it again ends alike; and
//! nothing else is left.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_env::{Loss, SimDisk};
use highwater_proto::batch::{Compression, DecodeLimits, split_batches};

use super::crash_tests::{FILE, checkpoint, resume, start};
use super::*;
use crate::test_support::{SHARD, keyed, tp};
use crate::{
    AppendBatch, Begun, Checkpoint, CompactionOptions, CompactionProgress, CompactionTask,
};

const ALL: Offset = Offset(u64::MAX);

#[derive(Debug, Clone)]
enum Step {
    Append(AppendBatch),
    /// Apply has decided it; somebody does it later.
    Decide(CompactionTask),
    Work,
    Trim(u64),
    Checkpoint,
}

fn batches() -> Vec<AppendBatch> {
    let made = (0..24_u64).map(|n| {
        let (a, b) = (format!("key {}", n % 4), format!("key {}", n % 7));
        let value = format!("value {n} {}", "x".repeat(60));
        let last = (n % 5 != 3).then_some(value.as_str());
        let records = [
            (Some(a.as_str()), Some(value.as_str())),
            (Some(b.as_str()), last),
        ];
        let kind = [Compression::None, Compression::Lz4][n as usize % 2];
        let mut batch = keyed(n * 2, 1_000 + n as i64, kind, &records);
        batch.new_segment = n % 3 == 0;
        batch
    });
    made.collect()
}

fn task(generation: u64, upto: u64, tombstones_below: u64) -> CompactionTask {
    CompactionTask {
        generation,
        upto: Offset(upto),
        floor: Offset(0),
        tombstones_below: Offset(tombstones_below),
        segment_bytes: 600,
    }
}

/// What apply decided, in its order: the write-ahead log that is never lost.
fn decided() -> Vec<Step> {
    let batches = batches();
    let append = |range: std::ops::Range<usize>| batches[range].iter().cloned().map(Step::Append);
    let mut steps: Vec<Step> = append(0..11).collect();
    steps.extend([Step::Checkpoint, Step::Decide(task(1, 18, 0)), Step::Work]);
    steps.extend(append(11..17));
    // Decided, and not done when the checkpoint is made.
    steps.extend([Step::Decide(task(2, 30, 18)), Step::Checkpoint, Step::Work]);
    steps.extend(append(17..19));
    steps.extend([
        Step::Checkpoint,
        Step::Trim(9),
        Step::Decide(task(3, 36, 30)),
    ]);
    steps.extend([Step::Work, Step::Checkpoint]);
    steps.extend(append(19..24));
    steps.extend([Step::Checkpoint]);
    steps
}

/// Does what was decided last, with memory for few keys. `None`: the disk refused.
async fn work(
    store: &SegmentStore<SimDisk>,
    shard: &mut ShardSegments<SimDisk>,
    task: CompactionTask,
) -> Option<()> {
    // Everything that was handed over is written.
    shard.freeze().wait().await.ok()?;
    let reader = store.reader(SHARD, tp(0))?;
    let options = CompactionOptions {
        key_bytes: 0,
        secret: [1; 16],
    };
    let begun = store.call_compactor(move || reader.compact(task, &options));
    let mut compaction = match begun.await.ok()? {
        Begun::Done => return Some(()),
        Begun::Ready(compaction) => compaction,
        Begun::NotYet | Begun::Unaligned => panic!("everything is written"),
    };
    loop {
        let stepped = store.call_compactor(move || {
            let outcome = compaction.step(200);
            (compaction, outcome)
        });
        let outcome;
        (compaction, outcome) = stepped.await.ok()?;
        match outcome {
            Ok(CompactionProgress::Some(_)) => {}
            Ok(CompactionProgress::Complete) => break,
            Err(_) => {
                store
                    .call_compactor(move || compaction.discard())
                    .await
                    .ok()?;
                return None;
            }
        }
    }
    let (outcome, _) = store.replace(compaction.finish()?).await.ok()?;
    assert_eq!(outcome, Replaced::Done);
    Some(())
}

/// Goes on behind `done` steps until the disk refuses. `None`: it has.
async fn live(disk: &SimDisk, store: &SegmentStore<SimDisk>, done: usize) -> Option<()> {
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.ok()?;
    let is_task = |step: &Step| match step {
        Step::Decide(task) => Some(*task),
        _ => None,
    };
    let mut newest = decided()[..done].iter().rev().find_map(is_task);
    for (n, step) in decided().into_iter().enumerate().skip(done) {
        match step {
            Step::Append(batch) => shard.append(tp(0), vec![batch]).await.ok()?,
            Step::Decide(task) => newest = Some(task),
            Step::Work => work(store, &mut shard, newest.expect("decided")).await?,
            Step::Trim(start) => shard.trim(tp(0), Offset(start)).await.ok()?,
            Step::Checkpoint => checkpoint(disk, (store, &mut shard), n + 1).await?,
        }
    }
    Some(())
}

/// The latest value of each key of whole batches; a key without value is gone.
fn latest(batches: impl Iterator<Item = Bytes>, from: u64) -> BTreeMap<Bytes, (u64, Bytes)> {
    let mut found = BTreeMap::new();
    for bytes in batches {
        for batch in split_batches(bytes) {
            let batch = batch.expect("whole");
            for record in batch.records(&DecodeLimits::default()).expect("decodes") {
                let record = record.expect("whole");
                let key = record.key.expect("a key");
                match record.value {
                    Some(value) if record.offset.0 >= from => {
                        found.insert(key, (record.offset.0, value));
                    }
                    _ => drop(found.remove(&key)),
                }
            }
        }
    }
    found
}

fn stored_latest(store: &SegmentStore<SimDisk>, what: &str) -> BTreeMap<Bytes, (u64, Bytes)> {
    let reader = store.reader(SHARD, tp(0)).expect("open").verifying();
    let (start, mut at) = (reader.log_start(), reader.log_start());
    let mut pieces = Vec::new();
    loop {
        let read = reader.read(at, 300, ALL);
        let read = read.unwrap_or_else(|error| panic!("{what}: at {at}: {error}"));
        let Some(last) = split_batches(read.clone()).last() else {
            return latest(pieces.into_iter(), start.0);
        };
        at = last.expect("whole").header().next_offset();
        pieces.push(read);
    }
}

/// What must be known of everything below `end`, in a log that begins at `start`.
fn appended_latest(start: u64, end: Offset) -> BTreeMap<Bytes, (u64, Bytes)> {
    let batches = batches()
        .into_iter()
        .filter(|batch| batch.base_offset < end);
    latest(
        batches.map(|batch| Bytes::from(crate::test_support::stored(&batch))),
        start,
    )
}

/// Starts again on what is left, goes on to the end, and removes what the crash left; what is there.
async fn recover(disk: &SimDisk, what: &str) -> (PartitionManifest, Vec<PathBuf>) {
    let store = start(disk).await.expect("started");
    let (done, checkpoint) = resume(disk, &store, what).await;
    if let Some(checkpoint) = checkpoint {
        let manifest = &checkpoint.partitions[0].1;
        let expected = appended_latest(manifest.log_start.0, manifest.next_offset);
        assert_eq!(stored_latest(&store, what), expected, "{what}");
        // What the state says was decided is done again.
        let tasks = decided()[..done].iter().rev().find_map(|step| match step {
            Step::Decide(task) => Some(*task),
            _ => None,
        });
        if let Some(task) = tasks {
            work(&store, &mut store.shard(SHARD), task)
                .await
                .expect("nothing refuses");
        }
    }
    live(disk, &store, done).await.expect("nothing refuses");
    let expected = appended_latest(9, ALL);
    assert_eq!(stored_latest(&store, what), expected, "{what}: in the end");
    let durable = Checkpoint::read(disk, Path::new(FILE)).expect("read");
    let durable = durable.expect("there").partitions;
    let removed = store.remove_orphans(SHARD, Arc::new(durable.clone())).await;
    removed.expect("removed");
    store.close().await.expect("closed");
    let files = disk.read_dir(Path::new("/partitions/3-0")).expect("listed");
    let is_log = |path: &PathBuf| path.extension().is_some_and(|e| e == "log");
    let logs = files.into_iter().filter(is_log).collect();
    (durable.into_iter().next().expect("one").1, logs)
}

/// What replicas must have alike.
fn ranges(manifest: &PartitionManifest) -> Vec<(Offset, Offset, u64, u32)> {
    let segments = manifest.segments.iter();
    segments
        .map(|s| (s.base_offset, s.next_offset, s.len_bytes, s.checksum))
        .collect()
}

#[tokio::test]
async fn no_crash_loses_the_latest_value_of_a_key_or_leaves_what_nobody_names() {
    let whole = SimDisk::new();
    let store = start(&whole).await.expect("started");
    live(&whole, &store, 0).await.expect("nothing refuses");
    store.close().await.expect("closed");
    let calls = whole.calls();
    let (alike, _) = recover(&whole, "without a crash").await;
    assert_eq!(alike.compacted.generation, 3);
    assert!(calls > 200, "{calls} calls");
    for stop in 0..calls {
        let disk = SimDisk::new();
        disk.stop_after(stop);
        if let Some(store) = start(&disk).await {
            live(&disk, &store, 0).await;
            // It may have been stopped already.
            let _ = store.close().await;
        }
        let losses = [Loss::Everything, Loss::Random { seed: stop }];
        let crashed = losses.map(|loss| (disk.crash(loss), format!("stopped at {stop}, {loss:?}")));
        // kill -9: nothing is lost but what was not done.
        disk.clear_faults();
        let killed = [(disk, format!("killed at {stop}"))];
        for (disk, what) in crashed.into_iter().chain(killed) {
            let (manifest, logs) = recover(&disk, &what).await;
            assert_eq!(ranges(&manifest), ranges(&alike), "{what}");
            assert_eq!(manifest.compacted, alike.compacted, "{what}");
            assert_eq!(logs.len(), manifest.segments.len(), "{what}: {logs:?}");
        }
    }
}
