//! The store: order, freezing, syncing, unlinking, and what happens when the disk refuses.

use std::sync::atomic::AtomicUsize;

use highwater_env::OsDisk;

use super::*;
use crate::file_cache::tests::CountingDisk;
use crate::test_support::{SHARD, batch, config, run, stored, tp};
use crate::{AppendBatch, Checkpoint};

const ALL: Offset = Offset(u64::MAX);

fn settings(root: &Path) -> SegmentStoreConfig {
    let mut settings = SegmentStoreConfig::new(root.join("partitions"));
    settings.segments = config();
    settings.queue_bytes = 4_096;
    settings.queue_jobs = 8;
    settings
}

pub(super) fn start<D: Disk>(disk: &D, root: &Path) -> SegmentStore<D> {
    let hook: OnFatal = Arc::new(|fault| panic!("{fault}"));
    SegmentStore::start(disk, Workers::Threads, settings(root), hook).expect("start")
}

fn rolled(mut batches: Vec<AppendBatch>, every: usize) -> Vec<AppendBatch> {
    for (i, batch) in batches.iter_mut().enumerate() {
        batch.new_segment = i > 0 && i % every == 0;
    }
    batches
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_exactly_what_came_before_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let (mut shard, mut other) = (store.shard(SHARD), store.shard(ShardId(9)));
    other.create(tp(1), 0).await.expect("create");
    shard.create(tp(0), 0).await.expect("create");
    assert_eq!(
        store.shard(ShardId(4)).freeze().wait().await.expect("none"),
        []
    );
    let mut tickets = Vec::new();
    for (i, batch) in run(200, 30).into_iter().enumerate() {
        other
            .append(tp(1), vec![batch.clone()])
            .await
            .expect("append");
        shard.append(tp(0), vec![batch]).await.expect("append");
        if i % 7 == 0 {
            tickets.push((2 * (i as u64 + 1), shard.freeze()));
        }
    }
    for (next_offset, ticket) in tickets {
        let manifests = ticket.wait().await.expect("frozen");
        assert_eq!(manifests.len(), 1);
        assert_eq!(
            (manifests[0].0, manifests[0].1.next_offset),
            (tp(0), Offset(next_offset))
        );
    }
    other.freeze().wait().await.expect("frozen");
    assert_eq!(store.written_up_to(ShardId(9), tp(1)), Some(Offset(400)));
    assert_eq!(store.written_up_to(SHARD, tp(2)), None);
    store.close().await.expect("close");
    assert!(matches!(
        shard.create(tp(5), 0).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        shard.freeze().wait().await,
        Err(StoreError::Closed)
    ));
}

/// Three partitions with the same batches.
async fn fill<D: Disk>(shard: &mut ShardSegments<D>, batches: &[AppendBatch]) {
    for partition in 0..3 {
        shard.create(tp(partition), 0).await.expect("create");
        for batch in batches {
            let batch = vec![batch.clone()];
            shard.append(tp(partition), batch).await.expect("append");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_brings_everything_back_and_only_then_are_files_unlinked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("shard.checkpoint");
    let hook: OnFatal = Arc::new(|fault| panic!("{fault}"));
    let workers = Workers::Tasks;
    let store = SegmentStore::start(&OsDisk, workers, settings(dir.path()), hook).expect("start");
    let mut shard = store.shard(SHARD);
    let batches = rolled(run(20, 30), 5);
    fill(&mut shard, &batches).await;
    let first = shard.freeze().wait().await.expect("frozen");
    let report = store.sync(SHARD).await.expect("sync");
    assert_eq!(report.files, 12);
    shard.trim(tp(0), Offset(20)).await.expect("trim");
    shard.delete(tp(1)).await.expect("delete");
    let second = shard.freeze().wait().await.expect("frozen");
    assert!(store.reader(SHARD, tp(1)).is_none());
    let first = Arc::new(first);
    assert_eq!(store.unlink(SHARD, first.clone()).await.expect("unlink"), 0);
    store.sync(SHARD).await.expect("sync");
    let checkpoint = Checkpoint {
        partitions: second,
        ..Checkpoint::default()
    };
    checkpoint.write(&OsDisk, &file).expect("write");
    let durable = Arc::new(checkpoint.partitions);
    assert_eq!(
        store
            .unlink(ShardId(1), Arc::default())
            .await
            .expect("another shard's"),
        0
    );
    let removed = store.unlink(SHARD, durable.clone()).await.expect("unlink");
    assert_eq!(
        removed,
        2 * 3 + 4 + 3 * 2,
        "two segments of 0; four of 1, three with indexes"
    );
    assert!(!dir.path().join("partitions/3-1").exists());
    store.close().await.expect("close");

    let store = start(&OsDisk, dir.path());
    let checkpoint = Checkpoint::read(&OsDisk, &file)
        .expect("read")
        .expect("there");
    let mut shard = store.shard(SHARD);
    shard
        .open(checkpoint.partitions.clone(), true)
        .await
        .expect("open");
    for batch in &batches[10..] {
        let reader = store.reader(SHARD, tp(0)).expect("open").verifying();
        assert_eq!(
            reader.read(batch.base_offset, 1, ALL).expect("read"),
            stored(batch)
        );
    }
    assert_eq!(shard.freeze().wait().await.expect("frozen"), *durable);
    store.close().await.expect("close");

    let store = start(&OsDisk, dir.path());
    let named = Arc::new([(tp(2), 0)].into());
    assert!(store.remove_orphan_partitions(named).await.expect("remove") > 0);
    assert!(!dir.path().join("partitions/3-0").exists());
    assert!(dir.path().join("partitions/3-2").exists());
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_missing_file_is_named_at_open() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.expect("create");
    shard.append(tp(0), run(3, 10)).await.expect("append");
    let manifests = shard.freeze().wait().await.expect("frozen");
    store.close().await.expect("close");
    let path = dir.path().join("partitions/3-0/00000000000000000000.log");
    std::fs::remove_file(&path).expect("remove");
    let store = start(&OsDisk, dir.path());
    let error = store
        .shard(SHARD)
        .open(manifests, true)
        .await
        .expect_err("missing");
    let error = error.to_string();
    assert!(
        error.contains("partition 3-0") && error.contains("is missing"),
        "{error}"
    );
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_full_disk_holds_appends_in_order_and_bounds_what_waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let store = start(&disk, dir.path());
    let mut shard = store.shard(SHARD);
    let batches = run(40, 200);
    shard.create(tp(0), 0).await.expect("create");
    shard
        .append(tp(0), batches[..1].to_vec())
        .await
        .expect("append");
    shard.freeze().wait().await.expect("frozen");
    disk.set_full(true);
    let mut sent = 1;
    loop {
        let more = shard.append(tp(0), vec![batches[sent].clone()]);
        tokio::select! {
            biased;
            done = more => done.expect("append"),
            () = until_full(&store) => break,
        }
        sent += 1;
    }
    assert!(sent < 20, "4 KiB of queue took {sent} batches");
    assert_eq!(store.written_up_to(SHARD, tp(0)), Some(Offset(2)));
    let ticket = shard.freeze();
    store.retry_storage().await.expect("retry");
    assert_eq!(store.written_up_to(SHARD, tp(0)), Some(Offset(2)));
    disk.set_full(false);
    store.retry_storage().await.expect("retry");
    let manifests = ticket.wait().await.expect("frozen");
    assert_eq!(manifests[0].1.next_offset, Offset(2 * sent as u64));
    shard
        .append(tp(0), batches[sent..sent + 1].to_vec())
        .await
        .expect("append");
    let manifests = shard.freeze().wait().await.expect("frozen");
    assert_eq!(manifests[0].1.next_offset, Offset(2 * (sent as u64 + 1)));
    assert!(!store.is_storage_full());
    store.close().await.expect("close");
}

/// Resolves once the writer waits for space and no permits are left for another batch.
async fn until_full(store: &SegmentStore<CountingDisk>) {
    while !(store.is_storage_full() && store.shared.permits.available_permits() < 600) {
        tokio::task::yield_now().await;
    }
}

/// What else would make room: a replica that goes while the disk is full, with appends that wait for it.
#[tokio::test]
async fn a_replica_that_goes_frees_its_space_on_a_full_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let store = start(&disk, dir.path());
    let (mut stays, mut goes) = (store.shard(ShardId(1)), store.shard(SHARD));
    let batches = run(40, 200);
    for (shard, partition) in [(&mut stays, tp(1)), (&mut goes, tp(0))] {
        shard.create(partition, 0).await.expect("create");
        let appended = shard.append(partition, batches[..1].to_vec()).await;
        appended.expect("append");
        shard.freeze().wait().await.expect("frozen");
    }
    disk.set_full(true);
    let mut sent = 1;
    loop {
        let one = vec![batches[sent].clone()];
        let (shard, partition) = match sent % 2 {
            0 => (&mut stays, tp(1)),
            _ => (&mut goes, tp(0)),
        };
        // Each shard's batches are in order, whatever lies between.
        let more = shard.append(partition, one);
        tokio::select! {
            biased;
            done = more => done.expect("append"),
            () = until_full(&store) => break,
        }
        sent += 1;
    }
    let ticket = goes.freeze();
    goes.delete_all(vec![(tp(2), 7)]).await.expect("deleted");
    ticket.wait().await.expect_err("its logs are gone");
    let removed = store.unlink(SHARD, Arc::default()).await.expect("unlink");
    assert!(removed > 0 && !dir.path().join("partitions/3-0").exists());
    assert!(store.is_storage_full());
    disk.set_full(false);
    store.retry_storage().await.expect("retry");
    let kept = stays.freeze().wait().await.expect("frozen");
    assert!(kept[0].1.next_offset > Offset(2), "{kept:?}");
    assert_eq!(goes.freeze().wait().await.expect("frozen"), []);
    store.close().await.expect("close");
}

/// Whoever applies entries may still be at it when its replica is removed.
#[tokio::test]
async fn what_comes_late_of_a_replica_that_is_gone_is_dropped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let store = start(&disk, dir.path());
    let batches = run(4, 200);
    let mut old = store.shard(SHARD);
    old.create(tp(0), 0).await.expect("create");
    let appended = old.append(tp(0), batches[..1].to_vec()).await;
    appended.expect("append");
    let first = old.freeze().wait().await.expect("frozen")[0].1.next_offset;
    let mut goes = store.shard(SHARD);
    goes.delete_all(Vec::new()).await.expect("deleted");
    store.unlink(SHARD, Arc::default()).await.expect("unlink");
    old.create(tp(1), 0).await.expect("handed over");
    let late = old.append(tp(0), batches[1..2].to_vec()).await;
    late.expect("handed over");
    // The next replica of the shard here.
    let mut next = store.shard(SHARD);
    assert_eq!(next.freeze().wait().await.expect("frozen"), []);
    next.create(tp(0), 0).await.expect("create");
    let appended = next.append(tp(0), batches[..1].to_vec()).await;
    appended.expect("append");
    let late = old.append(tp(0), batches[2..3].to_vec()).await;
    late.expect("handed over");
    let held = next.freeze().wait().await.expect("frozen");
    let ends: Vec<_> = held
        .iter()
        .map(|(tp, log)| (*tp, log.next_offset))
        .collect();
    assert_eq!(ends, [(tp(0), first)]);
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_failed_sync_reaches_the_caller_and_the_hook_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let reports = Arc::new(AtomicUsize::new(0));
    let counted = reports.clone();
    let hook: OnFatal = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let store =
        SegmentStore::start(&disk, Workers::Threads, settings(dir.path()), hook).expect("start");
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.expect("create");
    shard.append(tp(0), run(2, 10)).await.expect("append");
    shard.freeze().wait().await.expect("frozen");
    disk.fail_syncs(true);
    assert!(matches!(store.sync(SHARD).await, Err(StoreError::Fault(_))));
    assert!(matches!(store.sync(SHARD).await, Err(StoreError::Fault(_))));
    disk.fail_syncs(false);
    assert!(matches!(store.close().await, Err(StoreError::Fault(_))));
    assert_eq!(reports.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_append_that_cannot_be_placed_stops_the_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hook: OnFatal = Arc::new(|_| {});
    let store =
        SegmentStore::start(&OsDisk, Workers::Threads, settings(dir.path()), hook).expect("start");
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.expect("create");
    shard.append(tp(0), run(2, 10)).await.expect("append");
    shard
        .append(tp(0), vec![batch(3, &[1, 2], 5)])
        .await
        .expect("queued");
    assert!(shard.freeze().wait().await.is_err());
    let error = store.close().await.expect_err("stopped").to_string();
    assert!(error.contains("does not continue the log at 4"), "{error}");
}

/// The names in the directory of all partitions.
fn directories(root: &Path) -> Vec<String> {
    let found = std::fs::read_dir(root.join("partitions")).expect("listed");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = found.map(name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_partition_lies_beside_itself_in_the_shard_it_goes_to_and_may_come_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let (mut from, mut to) = (store.shard(SHARD), store.shard(ShardId(9)));
    let batches = run(4, 30);
    from.create(tp(0), 0).await.expect("create");
    to.create(tp(0), 5).await.expect("create");
    from.append(tp(0), batches.clone()).await.expect("append");
    to.append(tp(0), batches[..2].to_vec())
        .await
        .expect("append");
    let first = from.freeze().wait().await.expect("frozen");
    let second = to.freeze().wait().await.expect("frozen");
    assert_eq!(store.written_up_to(SHARD, tp(0)), Some(Offset(8)));
    assert_eq!(store.written_up_to(ShardId(9), tp(0)), Some(Offset(4)));
    assert_eq!(directories(dir.path()), ["3-0", "3-0-5"]);

    // It leaves the first shard, and comes back by another move before a checkpoint is durable.
    from.delete(tp(0)).await.expect("delete");
    from.create(tp(0), 7).await.expect("create");
    from.append(tp(0), batches.clone()).await.expect("append");
    let third = from.freeze().wait().await.expect("frozen");
    assert_eq!(directories(dir.path()), ["3-0", "3-0-5", "3-0-7"]);
    let removed = store.unlink(SHARD, Arc::new(first.clone())).await;
    assert_eq!(removed.expect("unlink"), 0, "the durable one names it");
    let removed = store.unlink(SHARD, Arc::new(third.clone())).await;
    assert!(removed.expect("unlink") > 0);
    assert_eq!(directories(dir.path()), ["3-0-5", "3-0-7"]);
    let removed = store.remove_orphans(SHARD, Arc::new(first)).await;
    assert_eq!(removed.expect("none"), 0, "it names another directory");
    store.close().await.expect("close");

    let store = start(&OsDisk, dir.path());
    let mut to = store.shard(ShardId(9));
    to.open(second.clone(), true).await.expect("open");
    assert_eq!(to.freeze().wait().await.expect("frozen"), second);
    let named = Arc::new([(tp(0), 5)].into());
    assert!(store.remove_orphan_partitions(named).await.expect("remove") > 0);
    assert_eq!(directories(dir.path()), ["3-0-5"]);
    store.close().await.expect("close");
}
