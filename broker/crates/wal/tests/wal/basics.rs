//! What the log does while nothing goes wrong.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use highwater_env::{OsEnv, SimDisk};
use highwater_wal::{GroupId, LogIndex, Op, Wal, WalConfig, WalError, WalOpenError};

use crate::model::Model;
use crate::support::{
    Fatal, History, Numbers, SimEnv, append, config, open, open_with, purge, run, settle, vote,
    workload,
};

const G: GroupId = GroupId(1);

#[test]
fn entries_states_and_purge_points_come_back() {
    let disk = SimDisk::new();
    run(async {
        let (wal, recovery) = open(&disk).unwrap();
        assert!(recovery.created && recovery.groups.is_empty());
        let entries = (5..10).map(|i| append(i, format!("entry {i}"))).collect();
        wal.write(G, entries).await.unwrap();
        wal.write(
            G,
            vec![vote("a"), purge(6), Op::Truncate { from: LogIndex(9) }],
        )
        .await
        .unwrap();
        wal.close().await;
        let (wal, recovery) = open(&disk).unwrap();
        assert!(!recovery.created && recovery.torn_tail.is_none());
        let bounds = wal.bounds(G);
        assert_eq!(recovery.groups[&G], bounds);
        assert_eq!(
            (bounds.first, bounds.last),
            (Some(LogIndex(7)), Some(LogIndex(8)))
        );
        assert_eq!(bounds.purged, Some((LogIndex(6), Bytes::from("meta 6"))));
        assert_eq!(bounds.states[&0], "a");
        let read = wal.read(G, LogIndex(7), LogIndex(100), usize::MAX).unwrap();
        let expected = [
            (LogIndex(7), "entry 7".into()),
            (LogIndex(8), "entry 8".into()),
        ];
        assert_eq!(read, expected);
        assert_eq!(
            wal.read(G, LogIndex(6), LogIndex(9), usize::MAX).unwrap(),
            []
        );
        assert_eq!(
            wal.read(GroupId(7), LogIndex(0), LogIndex(9), usize::MAX)
                .unwrap(),
            []
        );
        wal.write(G, vec![append(9, "again")]).await.unwrap();
    });
}

#[test]
fn reads_are_bounded_by_bytes_but_give_at_least_one_entry() {
    run(async {
        let (wal, _) = open(&SimDisk::new()).unwrap();
        let entries = (0..10).map(|i| append(i, vec![1; 100])).collect();
        wal.write(G, entries).await.unwrap();
        let count = |max| wal.read(G, LogIndex(0), LogIndex(8), max).unwrap().len();
        assert_eq!(
            [count(0), count(99), count(350), count(usize::MAX)],
            [1, 1, 3, 8]
        );
    });
}

#[test]
fn what_does_not_follow_is_refused_and_nothing_of_it_is_written() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        wal.write(G, vec![append(0, "zero")]).await.unwrap();
        let gap = wal
            .write(G, vec![vote("x"), append(2, "two")])
            .await
            .unwrap_err();
        assert!(
            matches!(
                gap,
                WalError::OutOfOrder {
                    expected: LogIndex(1),
                    ..
                }
            ),
            "{gap}"
        );
        let again = wal.write(G, vec![append(0, "zero")]).await.unwrap_err();
        assert!(matches!(
            again,
            WalError::OutOfOrder {
                found: LogIndex(0),
                ..
            }
        ));
        wal.write(G, vec![purge(9)]).await.unwrap();
        let below = wal.write(G, vec![append(1, "one")]).await.unwrap_err();
        assert!(matches!(
            below,
            WalError::OutOfOrder {
                expected: LogIndex(10),
                ..
            }
        ));
        wal.write(G, vec![append(10, "ten")]).await.unwrap();
        assert!(wal.bounds(G).states.is_empty());
    });
}

#[test]
fn what_waits_is_made_durable_by_one_sync() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        let mut history = History::default();
        for group in 0..20 {
            history
                .submit(&wal, group, vec![append(0, "x"), vote("y")])
                .await;
        }
        assert_eq!(history.acknowledged(), 0, "nothing before the sync");
        settle(&history).await;
        assert_eq!(wal.stats().fsyncs, 1);
        history.check(&wal);
    });
}

#[test]
fn submitters_wait_while_too_many_bytes_are_queued() {
    run(async {
        let (wal, _) = open(&SimDisk::new()).unwrap();
        let mut history = History::default();
        history
            .submit(&wal, 1, vec![append(0, vec![0; 60 << 10])])
            .await;
        let second = history.submit(&wal, 1, vec![append(1, vec![0; 30 << 10])]);
        let mut second = std::pin::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("the queue is full"),
            () = std::future::ready(()) => {}
        }
        assert!(second.await, "room once the first is durable");
    });
}

#[test]
fn an_idle_vote_and_entries_that_are_never_purged_survive_recycling_and_pin_nothing() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        wal.write(GroupId(0), vec![vote("once")]).await.unwrap();
        let stuck = (0..5).map(|i| append(i, format!("stuck {i}"))).collect();
        wal.write(GroupId(2), stuck).await.unwrap();
        for index in 0..1000 {
            wal.write(G, vec![append(index, vec![3; 1000])])
                .await
                .unwrap();
            if index % 10 == 9 {
                wal.write(G, vec![purge(index)]).await.unwrap();
            }
            let stats = wal.stats();
            assert!(stats.files <= 6, "{stats:?}");
        }
        let stats = wal.stats();
        assert!(
            stats.recycled_files > 50 && stats.relocated_bytes > 0,
            "{stats:?}"
        );
        assert!(stats.live_bytes < 1000, "{stats:?}");
        let before = Model::of(&wal);
        wal.close().await;
        let (wal, recovery) = open(&disk).unwrap();
        assert_eq!(Model::of(&wal), before);
        assert_eq!(recovery.groups[&GroupId(0)].states[&0], "once");
        assert!(recovery.bytes_read < 200 << 10, "{}", recovery.bytes_read);
    });
}

#[test]
fn following_the_hints_brings_the_log_below_its_budget() {
    run(async {
        let (wal, _) = open(&SimDisk::new()).unwrap();
        for index in 0..200 {
            wal.write(G, vec![append(index, vec![3; 1000])])
                .await
                .unwrap();
            let busy = GroupId(2 + (index % 2) as u32);
            wal.write(busy, vec![append(index / 2, vec![4; 10])])
                .await
                .unwrap();
        }
        assert!(wal.stats().bytes > 64 << 10);
        assert_eq!(
            wal.stats().recycled_files,
            0,
            "applied log is kept until it is purged"
        );
        let hints = wal.purge_hints();
        assert_eq!(
            hints.iter().map(|h| h.group.0).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(hints[0].upto < wal.bounds(G).last.unwrap());
        // Purging may fill another file, so it may take another round.
        while wal.stats().bytes > 64 << 10 {
            for hint in wal.purge_hints() {
                wal.write(hint.group, vec![purge(hint.upto.0)])
                    .await
                    .unwrap();
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(wal.purge_hints(), []);
        assert_eq!(wal.bounds(G).last, Some(LogIndex(199)));
    });
}

#[test]
fn a_submission_larger_than_a_file_gets_a_file_of_its_own() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        for index in 0..6 {
            wal.write(G, vec![append(index, vec![index as u8; 50_000])])
                .await
                .unwrap();
        }
        let before = Model::of(&wal);
        wal.close().await;
        let (wal, _) = open(&disk).unwrap();
        assert_eq!(Model::of(&wal), before);
        wal.write(G, vec![purge(5)]).await.unwrap();
        while wal.stats().files > 1 {
            tokio::task::yield_now().await;
        }
        assert!(wal.stats().bytes <= 64 << 10);
    });
}

#[test]
fn a_closed_log_takes_nothing_and_still_reads() {
    run(async {
        let (wal, _) = open(&SimDisk::new()).unwrap();
        wal.write(G, vec![append(0, "x")]).await.unwrap();
        wal.clone().close().await;
        wal.clone().close().await;
        let mut history = History::default();
        assert!(!history.submit(&wal, 1, vec![append(1, "y")]).await);
        assert!(matches!(
            history.answers.lock()[0],
            Some(Err(WalError::Closed))
        ));
        assert_eq!(wal.read(G, LogIndex(0), LogIndex(2), 100).unwrap().len(), 1);
    });
}

#[test]
fn files_of_another_size_are_still_read_and_then_replaced() {
    let disk = SimDisk::new();
    run(async {
        let mut history = History::default();
        let mut numbers = Numbers(9);
        for file_bytes in [16 << 10, 32 << 10, 8 << 10, 16 << 10] {
            let config = WalConfig {
                file_bytes,
                ..config(&Fatal::default())
            };
            let (wal, _) = open_with(&disk, config).unwrap();
            history.check(&wal);
            workload(&wal, &mut history, &mut numbers, 60).await;
            wal.close().await;
        }
    });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let config = WalConfig {
        file_bytes: 100,
        ..WalConfig::default()
    };
    run(async {
        let refused = open_with(&SimDisk::new(), config).map(|_| ()).unwrap_err();
        assert!(matches!(refused, WalOpenError::Config { .. }));
    });
}

#[test]
fn a_run_makes_the_same_file_calls_every_time() {
    let trace = || {
        let disk = SimDisk::new();
        disk.start_trace();
        run(async {
            let (wal, _) = open(&disk).unwrap();
            workload(&wal, &mut History::default(), &mut Numbers(77), 200).await;
            wal.close().await;
        });
        disk.trace()
    };
    assert_eq!(trace(), trace());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_submitters_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Fatal::default();
    let config = || WalConfig {
        file_bytes: 256 << 10,
        ..config(&fatal)
    };
    let open = || Wal::open(&OsEnv::default(), Path::new(dir.path()), config()).unwrap();
    let (wal, _) = open();
    let submitters = (0..8_u32).map(|group| {
        let wal = wal.clone();
        tokio::spawn(async move {
            for index in 0..200_u64 {
                let payload = Bytes::from(vec![group as u8; 1 + (index as usize * 37) % 4000]);
                wal.write(GroupId(group), vec![append(index, payload)])
                    .await
                    .unwrap();
                if index % 50 == 49 {
                    wal.write(GroupId(group), vec![purge(index - 20)])
                        .await
                        .unwrap();
                }
                let from = LogIndex(index.saturating_sub(10));
                assert!(
                    !wal.read(GroupId(group), from, LogIndex(index + 1), 9000)
                        .unwrap()
                        .is_empty()
                        || from <= wal.bounds(GroupId(group)).purged.unwrap().0
                );
            }
        })
    });
    for submitter in submitters.collect::<Vec<_>>() {
        submitter.await.unwrap();
    }
    let before = Model::of(&wal);
    assert_eq!(before.groups.len(), 8);
    wal.close().await;
    assert_eq!(Model::of(&open().0), before);
    assert_eq!(fatal.load(Ordering::SeqCst), 0);
}

#[test]
fn a_handle_that_is_dropped_without_closing_ends_the_writer() {
    let answers = Arc::new(parking_lot::Mutex::new(0));
    run(async {
        let (wal, _): (Wal<SimEnv>, _) = open(&SimDisk::new()).unwrap();
        let told = Arc::clone(&answers);
        let done = Box::new(move |answer: Result<(), WalError>| {
            answer.unwrap();
            *told.lock() += 1;
        });
        wal.submit(G, vec![append(0, "x")], done).await.unwrap();
        drop(wal);
        while *answers.lock() == 0 {
            tokio::task::yield_now().await;
        }
    });
}
