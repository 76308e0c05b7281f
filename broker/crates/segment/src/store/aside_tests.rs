//! Logs aside: seen by nobody until they take their places, and gone without a trace otherwise.

use highwater_env::OsDisk;

use super::tests::start;
use super::*;
use crate::manifest::Compacted;
use crate::test_support::{SHARD, run, stored, tp};
use crate::{AppendBatch, Checkpoint, PartitionManifest};

const ALL: Offset = Offset(u64::MAX);

/// What a reader finds, by the first offset of each batch.
fn seen<D: Disk>(store: &SegmentStore<D>, batches: &[AppendBatch]) -> Vec<u64> {
    let reader = store.reader(SHARD, tp(0)).expect("open").verifying();
    let is_there = |batch: &&AppendBatch| {
        let found = reader.read(batch.base_offset, 1, ALL);
        found.is_ok_and(|found| found == stored(batch))
    };
    let there = batches.iter().filter(is_there);
    there.map(|batch| batch.base_offset.0).collect()
}

/// Batches of another size than [`run`]'s of 30 bytes, so that each can be told from the one in its place.
fn others(count: u64) -> Vec<AppendBatch> {
    run(count, 50)
}

async fn frozen<D: Disk>(shard: &mut ShardSegments<D>) -> Vec<(TopicPartition, PartitionManifest)> {
    shard.freeze().wait().await.expect("frozen")
}

/// All files below the partitions' directory.
fn files(root: &Path) -> usize {
    let directories = std::fs::read_dir(root.join("partitions")).expect("listed");
    directories
        .map(|one| std::fs::read_dir(one.expect("listed").path()).map_or(0, Iterator::count))
        .sum()
}

#[tokio::test]
async fn what_lies_aside_is_seen_by_nobody_until_it_takes_its_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    let (own, new) = (run(6, 30), others(9));
    shard.create(tp(0), 0).await.expect("create");
    shard.create(tp(1), 0).await.expect("create");
    shard
        .append(tp(0), own[..4].to_vec())
        .await
        .expect("append");
    let before = frozen(&mut shard).await;

    shard.begin_aside(tp(0), 0).await.expect("begun");
    let gathered = new[..3].iter().chain(&new[5..]).cloned().collect();
    shard.append_aside(tp(0), gathered).await.expect("append");
    let compacted = Compacted {
        generation: 3,
        upto: Offset(10),
    };
    let set = shard.set_compacted(tp(0), compacted, Offset(20));
    set.await.expect("set");
    assert_eq!(frozen(&mut shard).await, before, "nothing has happened");
    assert_eq!(seen(&store, &own), [0, 2, 4, 6]);
    // The old state goes on, as it does when whoever sends has died.
    shard
        .append(tp(0), own[4..].to_vec())
        .await
        .expect("append");
    let gone_on = frozen(&mut shard).await;
    assert_eq!(seen(&store, &own), [0, 2, 4, 6, 8, 10]);

    let mut promised = shard.freeze_aside().await.expect("frozen");
    assert_eq!(frozen(&mut shard).await, gone_on);
    promised.retain(|(at, _)| *at == tp(0));
    promised[0].1.trim(Offset(4));
    store.sync(SHARD).await.expect("sync");
    let checkpoint = Checkpoint {
        partitions: promised.clone(),
        ..Checkpoint::default()
    };
    let file = dir.path().join("shard.checkpoint");
    checkpoint.write(&OsDisk, &file).expect("write");
    let durable = Arc::new(promised.clone());
    store.unlink(SHARD, durable.clone()).await.expect("unlink");
    // Dropped here, it would go on as before.
    assert_eq!(seen(&store, &own), [0, 2, 4, 6, 8, 10]);

    let taken = shard.take_aside(vec![(tp(0), Offset(4))], vec![tp(1)]);
    taken.await.expect("taken");
    assert_eq!(frozen(&mut shard).await, promised, "as was promised");
    assert_eq!(seen(&store, &new), [4, 10, 12, 14, 16]);
    let reader = store.reader(SHARD, tp(0)).expect("open");
    assert_eq!(
        (reader.next_offset(), reader.compacted()),
        (Offset(20), compacted)
    );
    assert!(store.reader(SHARD, tp(1)).is_none());
    assert!(store.unlink(SHARD, durable).await.expect("unlink") > 0);
    store.close().await.expect("close");

    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    shard.open(promised, true).await.expect("opened");
    assert_eq!(seen(&store, &new), [4, 10, 12, 14, 16]);
    store.close().await.expect("close");
}

#[tokio::test]
async fn what_is_given_up_goes_and_what_is_there_stays() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    let (own, new) = (run(4, 30), others(4));
    shard.create(tp(0), 0).await.expect("create");
    shard.append(tp(0), own.clone()).await.expect("append");
    let before = frozen(&mut shard).await;
    let durable = Arc::new(before.clone());
    let at_first = files(dir.path());
    for attempt in 0..3 {
        shard.begin_aside(tp(0), 0).await.expect("begun");
        // Of a partition that is not here at all, too.
        shard.begin_aside(tp(5), 2).await.expect("begun");
        for at in [tp(0), tp(5)] {
            let some = new[..=attempt].to_vec();
            shard.append_aside(at, some).await.expect("append");
        }
        if attempt > 0 {
            shard.give_up_aside().await.expect("given up");
        }
    }
    assert_eq!(frozen(&mut shard).await, before);
    assert_eq!(seen(&store, &own), [0, 2, 4, 6]);
    assert!(files(dir.path()) > at_first);
    store.unlink(SHARD, durable.clone()).await.expect("unlink");
    // The last attempt comes to its end.
    shard.begin_aside(tp(5), 2).await.expect("begun");
    shard
        .append_aside(tp(5), new.clone())
        .await
        .expect("append");
    let taken = shard.take_aside(Vec::new(), Vec::new());
    taken.await.expect("taken");
    let after = frozen(&mut shard).await;
    assert_eq!(after[0], before[0]);
    let last = &after[1];
    assert_eq!(
        (last.0, last.1.arrival, last.1.next_offset),
        (tp(5), 2, Offset(8))
    );
    let durable = Arc::new(after.clone());
    store.sync(SHARD).await.expect("sync");
    store.unlink(SHARD, durable).await.expect("unlink");
    assert_eq!(files(dir.path()), at_first + last.1.segments.len());
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_partition_that_was_elsewhere_meanwhile_comes_as_a_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    let (own, new) = (run(4, 30), others(5));
    shard.create(tp(0), 1).await.expect("create");
    shard.append(tp(0), own.clone()).await.expect("append");
    let before = Arc::new(frozen(&mut shard).await);
    store.sync(SHARD).await.expect("sync");
    shard.begin_aside(tp(0), 7).await.expect("begun");
    shard
        .append_aside(tp(0), new.clone())
        .await
        .expect("append");
    assert_eq!(frozen(&mut shard).await, *before);
    assert_eq!(seen(&store, &own), [0, 2, 4, 6]);
    // Nothing names it, and it is in use all the same.
    let named = Arc::new([(tp(0), 1)].into());
    let removed = store.remove_orphan_partitions(named).await;
    assert_eq!(removed.expect("looked"), 0);
    let taken = shard.take_aside(Vec::new(), Vec::new());
    taken.await.expect("taken");
    assert_eq!(seen(&store, &new), [0, 2, 4, 6, 8]);
    let after = Arc::new(frozen(&mut shard).await);
    assert_eq!(after[0].1.arrival, 7);
    assert_eq!(
        store.unlink(SHARD, before).await.expect("unlink"),
        0,
        "named"
    );
    assert!(store.unlink(SHARD, after).await.expect("unlink") > 0);
    assert_eq!(seen(&store, &new), [0, 2, 4, 6, 8]);
    store.close().await.expect("close");
}

/// Also a partition that no checkpoint has named yet: a later replica of the shard would take it for its own.
#[tokio::test]
async fn a_replica_that_goes_leaves_no_log_to_the_next_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(&OsDisk, dir.path());
    let mut shard = store.shard(SHARD);
    for partition in [tp(0), tp(1)] {
        shard.create(partition, 0).await.expect("create");
        shard.append(partition, run(2, 30)).await.expect("append");
    }
    // One beside its own, one beside nothing, one of an attempt that was given up.
    shard.begin_aside(tp(2), 7).await.expect("begun");
    shard.give_up_aside().await.expect("given up");
    for (partition, arrival) in [(tp(1), 0), (tp(3), 8)] {
        let begun = shard.begin_aside(partition, arrival).await;
        begun.expect("begun");
        let appended = shard.append_aside(partition, others(2)).await;
        appended.expect("append");
    }
    assert_eq!(frozen(&mut shard).await.len(), 2);
    assert_eq!(files(dir.path()), 4);

    let mut shard = store.shard(SHARD);
    shard.delete_all(vec![]).await.expect("deleted");
    store.unlink(SHARD, Arc::default()).await.expect("unlink");
    assert_eq!(files(dir.path()), 0);
    let mut next = store.shard(SHARD);
    assert_eq!(frozen(&mut next).await, []);
    assert_eq!(next.freeze_aside().await.expect("frozen"), []);
    store.close().await.expect("close");
}
