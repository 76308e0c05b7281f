//! Gathering: small appends wait until told, until they are many, or until someone needs them.

use highwater_env::OsDisk;

use super::*;
use crate::test_support::{SHARD, config, run, tp};

fn start(root: &Path, gather_bytes: usize) -> SegmentStore<OsDisk> {
    let mut settings = SegmentStoreConfig::new(root.join("partitions"));
    settings.segments = config();
    settings.gather_bytes = gather_bytes;
    let hook: OnFatal = Arc::new(|fault| panic!("{fault}"));
    SegmentStore::start(&OsDisk, Workers::Threads, settings, hook).expect("start")
}

/// Every call goes through one queue, so an answered one means that all before it were taken.
async fn settle(store: &SegmentStore<OsDisk>, end: u64) {
    while store.written_up_to(SHARD, tp(0)) != Some(Offset(end)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gathered_is_written_when_told_frozen_or_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(dir.path(), 1 << 20);
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.expect("create");
    let mut batches = run(30, 30).into_iter();
    let mut append = async |shard: &mut ShardSegments<OsDisk>| {
        let batch = batches.next().expect("a batch");
        let end = batch.last_offset.plus(1);
        shard.append(tp(0), vec![batch]).await.expect("append");
        end.0
    };
    let first = append(&mut shard).await;
    store.write().await.expect("write");
    settle(&store, first).await;
    let second = append(&mut shard).await;
    let frozen = shard.freeze().wait().await.expect("frozen");
    assert_eq!(frozen[0].1.next_offset, Offset(second));
    let third = append(&mut shard).await;
    let reader = store.reader(SHARD, tp(0)).expect("open");
    store.close().await.expect("close");
    assert_eq!(reader.next_offset(), Offset(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bytes_are_written_without_being_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = start(dir.path(), 2_000);
    let mut shard = store.shard(SHARD);
    shard.create(tp(0), 0).await.expect("create");
    for batch in run(100, 30) {
        shard.append(tp(0), vec![batch]).await.expect("append");
    }
    // Not all of it need be written, but most: the rest is less than what is gathered.
    while store.written_up_to(SHARD, tp(0)) < Some(Offset(100)) {
        tokio::task::yield_now().await;
    }
    store.close().await.expect("close");
}
