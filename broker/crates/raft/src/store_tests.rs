//! openraft's own storage suite over a real log, and what it does not ask.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_env::{Disk as _, Env, Loss, OsEnv};
use highwater_proto::{NodeId, ShardId};
use highwater_wal::{GroupId, Wal, WalConfig};
use openraft::StorageError;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::testing::log::{StoreBuilder, Suite};

use super::LogStore;
use crate::adapter::Adapter;
use crate::cache::EntryCache;
use crate::journal::{Journal, WalJournal};
use crate::testing::{SimEnv, command};
use crate::toy::Toy;
use crate::types::{Command, Entry, TypeConfig, Vote, log_id};

const GROUP: ShardId = ShardId(3);

struct Builder {
    cache_bytes: usize,
}

/// A directory and the log in it.
type Guard = (tempfile::TempDir, Wal<OsEnv>);

fn open(dir: &Path, cache_bytes: usize) -> (Wal<OsEnv>, LogStore) {
    open_in(&OsEnv::default(), dir, cache_bytes)
}

fn open_in<E: Env>(env: &E, dir: &Path, cache_bytes: usize) -> (Wal<E>, LogStore) {
    let config = WalConfig {
        file_bytes: 1 << 20,
        ..WalConfig::default()
    };
    let (wal, _) = Wal::open(env, dir, config).unwrap();
    let journal = Arc::new(WalJournal {
        wal: wal.clone(),
        workers: env.workers(),
    });
    let recovered = journal.recovered(GroupId(GROUP.0));
    let store = LogStore::open(GROUP, journal, EntryCache::new(cache_bytes), &recovered).unwrap();
    (wal, store)
}

impl StoreBuilder<TypeConfig, LogStore, Adapter<Toy>, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, Adapter<Toy>), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (wal, store) = open(dir.path(), self.cache_bytes);
        let mut machine = Toy::new(dir.path());
        let current = crate::adapter::load(&mut machine).await.unwrap();
        let mut adapter = Adapter::new(NodeId(0), machine, current, store.shared());
        adapter.tolerate_gaps();
        Ok(((dir, wal), store, adapter))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_with_entries_in_the_cache() {
    Suite::test_all(Builder {
        cache_bytes: 16 << 20,
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_with_entries_in_the_log_alone() {
    Suite::test_all(Builder { cache_bytes: 0 }).await.unwrap();
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = Command(command("e", usize::try_from(index).unwrap(), bytes));
    Entry {
        log_id: log_id(term, index),
        payload: openraft::EntryPayload::Normal(command),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(4, 2);
    {
        let (wal, mut store) = open(dir.path(), 1 << 20);
        store
            .blocking_append((0..50).map(|i| entry(1, i, 100)))
            .await
            .unwrap();
        store.save_vote(&vote).await.unwrap();
        store.truncate_after(Some(log_id(1, 39))).await.unwrap();
        store.save_committed(Some(log_id(1, 39))).await.unwrap();
        store
            .blocking_append((40..60).map(|i| entry(4, i, 100)))
            .await
            .unwrap();
        store.purge(log_id(1, 9)).await.unwrap();
        store
            .shared()
            .wait_flushed(store.shared().submitted())
            .await
            .unwrap();
        wal.close().await;
    }
    let (wal, mut store) = open(dir.path(), 1 << 20);
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 9)));
    assert_eq!(state.last_log_id, Some(log_id(4, 59)));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 39)));
    let mut reader = store.reader();
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    let entries = reader.try_get_log_entries(0..).await.unwrap();
    let expected: Vec<Entry> = (10..40)
        .map(|i| entry(1, i, 100))
        .chain((40..60).map(|i| entry(4, i, 100)))
        .collect();
    assert_eq!(entries, expected);
    wal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_read_stops_near_a_mebibyte_and_yields_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    for cache_bytes in [0, 1 << 30] {
        let path = dir.path().join(cache_bytes.to_string());
        let (wal, mut store) = open(&path, cache_bytes);
        store
            .blocking_append((0..8).map(|i| entry(1, i, 300 << 10)))
            .await
            .unwrap();
        store.blocking_append([entry(1, 8, 3 << 20)]).await.unwrap();
        let mut reader = store.reader();
        assert_eq!(reader.limited_get_log_entries(0, 9).await.unwrap().len(), 3);
        assert_eq!(reader.limited_get_log_entries(8, 9).await.unwrap().len(), 1);
        assert_eq!(reader.try_get_log_entries(0..9).await.unwrap().len(), 9);
        assert!(
            reader
                .limited_get_log_entries(9, 20)
                .await
                .unwrap()
                .is_empty()
        );
        wal.close().await;
    }
}

#[tokio::test]
async fn what_was_reported_durable_survives_a_power_loss() {
    let dir = Path::new("/wal");
    let env = SimEnv::default();
    env.disk.create_dir_all(dir).unwrap();
    env.disk.sync_dir(Path::new("/")).unwrap();
    let (_wal, mut store) = open_in(&env, dir, 0);
    for round in 0..20_u64 {
        let vote = Vote::new_committed(round + 1, 2);
        store.save_vote(&vote).await.unwrap();
        let indexes = round * 10..round * 10 + 10;
        store
            .blocking_append(indexes.map(|i| entry(round + 1, i, 200)))
            .await
            .unwrap();
        let losses = [Loss::Everything, Loss::Random { seed: round }];
        for loss in losses {
            let after = SimEnv {
                disk: env.disk.crash(loss),
            };
            let (_wal, mut store) = open_in(&after, dir, 0);
            let state = store.get_log_state().await.unwrap();
            assert_eq!(
                state.last_log_id,
                Some(log_id(round + 1, round * 10 + 9)),
                "{loss:?}"
            );
            let mut reader = store.reader();
            assert_eq!(reader.read_vote().await.unwrap(), Some(vote), "{loss:?}");
            let entries = reader.try_get_log_entries(..).await.unwrap();
            assert_eq!(entries.len() as u64, round * 10 + 10);
        }
    }
}

#[tokio::test]
async fn a_failed_write_reaches_whoever_waits() {
    let dir = Path::new("/wal");
    let env = SimEnv::default();
    env.disk.create_dir_all(dir).unwrap();
    let (_wal, mut store) = open_in(&env, dir, 0);
    store.blocking_append([entry(1, 0, 100)]).await.unwrap();
    env.disk.fail_after(0, io::ErrorKind::Other);
    assert!(store.blocking_append([entry(1, 1, 100)]).await.is_err());
    assert!(store.save_vote(&Vote::new(9, 1)).await.is_err());
    assert_ne!(
        store.reader().read_vote().await.unwrap(),
        Some(Vote::new(9, 1))
    );
    assert!(
        store
            .shared()
            .wait_flushed(store.shared().submitted())
            .await
            .is_err()
    );
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::VoteNotFsynced,
        "store::tests::everything_is_there_again_after_reopening",
    );
}
