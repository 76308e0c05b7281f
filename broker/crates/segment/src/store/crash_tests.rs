//! The power fails between any two calls to the disk while logs are trimmed and partitions deleted:
//! what the durable checkpoint names is there, and nothing else is left in the end.

use std::collections::BTreeSet;

use bytes::Bytes;
use highwater_env::{Loss, SimDisk};

use super::*;
use crate::test_support::{SHARD, config, run, stored, tp};
use crate::{AppendBatch, Checkpoint};

pub(super) const FILE: &str = "/shard.checkpoint";

#[derive(Debug, Clone)]
enum Step {
    Create(u32),
    Append(u32, AppendBatch),
    Trim(u32, u64),
    Delete(u32),
    Checkpoint,
}

/// What apply decided, in its order: the write-ahead log that is never lost.
fn decided() -> Vec<Step> {
    let mut batches = run(30, 30);
    for (n, batch) in batches.iter_mut().enumerate() {
        batch.new_segment = n > 0 && n % 5 == 0;
    }
    let mut steps = vec![Step::Create(0), Step::Create(1)];
    for batch in &batches[..20] {
        steps.push(Step::Append(0, batch.clone()));
        steps.push(Step::Append(1, batch.clone()));
    }
    // One that no checkpoint ever names.
    steps.push(Step::Checkpoint);
    steps.push(Step::Create(2));
    steps.push(Step::Append(2, batches[0].clone()));
    steps.extend([Step::Trim(0, 20), Step::Delete(1), Step::Delete(2)]);
    steps.extend([Step::Append(0, batches[20].clone()), Step::Checkpoint]);
    // The whole log goes, the segment that grows too; it begins anew at its end.
    steps.push(Step::Trim(0, 42));
    let mut first = batches[21].clone();
    first.new_segment = true;
    steps.extend([Step::Append(0, first), Step::Checkpoint]);
    steps
}

pub(super) async fn start(disk: &SimDisk) -> Option<SegmentStore<SimDisk>> {
    let mut settings = SegmentStoreConfig::new("/partitions".into());
    settings.segments = config();
    // A disk that refuses ends the process: the store stops.
    let hook: OnFatal = Arc::new(|_| {});
    SegmentStore::start(disk, Workers::Tasks, settings, hook).ok()
}

/// A checkpoint of what was done up to step `done`, and what it makes needless goes. `None`: the disk refused.
pub(super) async fn checkpoint(
    disk: &SimDisk,
    (store, shard): (&SegmentStore<SimDisk>, &mut ShardSegments<SimDisk>),
    done: usize,
) -> Option<()> {
    let partitions = shard.freeze().wait().await.ok()?;
    store.sync(SHARD).await.ok()?;
    let checkpoint = Checkpoint {
        state: Bytes::copy_from_slice(&(done as u64).to_be_bytes()),
        partitions,
        ..Checkpoint::default()
    };
    checkpoint.write(disk, Path::new(FILE)).ok()?;
    let durable = Arc::new(checkpoint.partitions);
    store.unlink(SHARD, durable).await.ok()?;
    Some(())
}

/// Opens what the durable checkpoint names: every file is there, as long as it says, and with what was written.
/// Answers with the steps that are done, and the checkpoint.
pub(super) async fn resume(
    disk: &SimDisk,
    store: &SegmentStore<SimDisk>,
    what: &str,
) -> (usize, Option<Checkpoint>) {
    let Some(checkpoint) = Checkpoint::read(disk, Path::new(FILE)).expect(what) else {
        return (0, None);
    };
    let state: [u8; 8] = checkpoint.state[..].try_into().expect("eight bytes");
    let done = usize::try_from(u64::from_be_bytes(state)).expect("small");
    let named = checkpoint.partitions.clone();
    let opened = store.shard(SHARD).open(named, true).await;
    opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    (done, Some(checkpoint))
}

/// Goes on behind `done` steps until the disk refuses. `None`: it has.
async fn live(disk: &SimDisk, store: &SegmentStore<SimDisk>, done: usize) -> Option<()> {
    let mut shard = store.shard(SHARD);
    for (n, step) in decided().into_iter().enumerate().skip(done) {
        match step {
            Step::Create(p) => shard.create(tp(p), 0).await.ok()?,
            Step::Append(p, batch) => shard.append(tp(p), vec![batch]).await.ok()?,
            Step::Trim(p, start) => shard.trim(tp(p), Offset(start)).await.ok()?,
            Step::Delete(p) => shard.delete(tp(p)).await.ok()?,
            Step::Checkpoint => checkpoint(disk, (store, &mut shard), n + 1).await?,
        }
    }
    Some(())
}

/// Starts again on what is left, goes on to the end, and removes what the crash left.
async fn recover(disk: &SimDisk, what: &str) {
    let store = start(disk).await.expect("started");
    let (done, checkpoint) = resume(disk, &store, what).await;
    if let Some(checkpoint) = checkpoint {
        for (tp, manifest) in &checkpoint.partitions {
            let (reader, mut at) = (store.reader(SHARD, *tp).expect("open"), manifest.log_start);
            let reader = reader.verifying();
            while at < manifest.next_offset {
                let read = reader.read(at, 1, Offset(u64::MAX));
                let read = read.unwrap_or_else(|error| panic!("{what}: {tp} at {at}: {error}"));
                let batch = decided().into_iter().find_map(|step| match step {
                    Step::Append(_, batch) if batch.base_offset == at => Some(batch),
                    _ => None,
                });
                let batch = batch.expect("known");
                assert_eq!(read, stored(&batch), "{what}: {tp} at {at}");
                at = batch.last_offset.plus(1);
            }
        }
    }
    live(disk, &store, done).await.expect("nothing refuses");
    let mut shard = store.shard(SHARD);
    let end = shard.freeze().wait().await.expect("frozen");
    let durable = Checkpoint::read(disk, Path::new(FILE))
        .expect("read")
        .expect("there");
    assert_eq!(end, durable.partitions, "{what}");
    let removed = store
        .remove_orphans(SHARD, Arc::new(durable.partitions))
        .await;
    removed.expect("removed");
    let named: BTreeSet<(TopicPartition, u64)> = [(tp(0), 0)].into();
    let removed = store.remove_orphan_partitions(Arc::new(named)).await;
    removed.expect("removed");
    assert_eq!(
        store.partition_directories().expect("listed"),
        [(tp(0), 0)],
        "{what}"
    );
    let files = disk.read_dir(Path::new("/partitions/3-0")).expect("listed");
    let logs = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    assert_eq!(logs.count(), 1, "{what}: {files:?}");
    store.close().await.expect("closed");
}

#[tokio::test]
async fn no_crash_takes_what_a_checkpoint_names_or_leaves_what_nobody_does() {
    let whole = SimDisk::new();
    let store = start(&whole).await.expect("started");
    live(&whole, &store, 0).await.expect("nothing refuses");
    store.close().await.expect("closed");
    let calls = whole.calls();
    assert!(calls > 100, "{calls} calls");
    for stop in 0..calls {
        let disk = SimDisk::new();
        disk.stop_after(stop);
        if let Some(store) = start(&disk).await {
            live(&disk, &store, 0).await;
            // It may have been stopped already.
            let _ = store.close().await;
        }
        let losses = [Loss::Everything, Loss::Random { seed: stop }];
        for loss in losses {
            recover(&disk.crash(loss), &format!("stopped at {stop}, {loss:?}")).await;
        }
        // kill -9: nothing is lost but what was not done.
        disk.clear_faults();
        recover(&disk, &format!("killed at {stop}")).await;
    }
}
