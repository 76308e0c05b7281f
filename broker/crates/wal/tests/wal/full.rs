//! A full disk: appends wait, votes go on, and space that comes back is noticed.

use std::sync::atomic::Ordering;

use highwater_env::SimDisk;
use highwater_wal::{GroupId, Wal};

use crate::support::{
    Fatal, History, SimEnv, append, config, open, open_with, purge, run, settle, truncate, vote,
};

/// Lets the writer take what was submitted.
async fn writer_runs() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Fills the disk by group 1, so that its last appends wait; answers with the offset of the next one.
async fn fill(wal: &Wal<SimEnv>, history: &mut History) -> u64 {
    let mut next = 0;
    while !wal.stats().storage_full || history.answers.lock().iter().all(Option::is_some) {
        history
            .submit(wal, 1, vec![append(next, vec![1; 3000])])
            .await;
        next += 1;
        writer_runs().await;
        assert!(next < 100);
    }
    next
}

async fn answered(history: &History, at: usize) {
    while history.answers.lock()[at].is_none() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn appends_wait_votes_go_on_and_a_purge_frees_space() {
    let disk = SimDisk::new();
    let fatal = Fatal::default();
    run(async {
        let (wal, _) = open_with(&disk, config(&fatal)).unwrap();
        wal.write(GroupId(0), vec![vote("first")]).await.unwrap();
        disk.set_capacity(Some(7 * (16 << 10)));
        let mut history = History::default();
        history.submit(&wal, 0, vec![vote("first")]).await;
        let next = fill(&wal, &mut history).await;
        for number in 0..60 {
            let ballot = format!("ballot {number}");
            wal.write(GroupId(0), vec![vote(&ballot)]).await.unwrap();
            assert!(wal.stats().storage_full);
        }
        let waiting = history
            .answers
            .lock()
            .iter()
            .filter(|answer| answer.is_none())
            .count();
        assert!(waiting > 0 && fatal.load(Ordering::SeqCst) == 0);
        let last = wal.bounds(GroupId(1)).last.unwrap();
        wal.write(GroupId(1), vec![purge(last.0)]).await.unwrap();
        settle(&history).await;
        assert_eq!(history.acknowledged(), history.submitted.len());
        assert!(!wal.stats().storage_full);
        wal.close().await;
        let (wal, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.groups[&GroupId(0)].states[&0], "ballot 59");
        assert_eq!(wal.bounds(GroupId(1)).last.unwrap().0, next - 1);
    });
}

#[test]
fn space_that_comes_back_is_noticed_without_another_submission() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        disk.set_capacity(Some(4 * (16 << 10)));
        let mut history = History::default();
        for index in 0..30 {
            history
                .submit(&wal, 1, vec![append(index, vec![1; 3000])])
                .await;
            writer_runs().await;
            if wal.stats().storage_full && history.answers.lock().iter().any(Option::is_none) {
                break;
            }
        }
        assert!(history.answers.lock().iter().any(Option::is_none));
        disk.set_capacity(None);
        settle(&history).await;
        history.check(&wal);
    });
}

#[test]
fn a_vote_never_overtakes_entries_of_its_own_group() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        disk.set_capacity(Some(7 * (16 << 10)));
        let mut history = History::default();
        fill(&wal, &mut history).await;
        history.submit(&wal, 1, vec![vote("next term")]).await;
        history.submit(&wal, 0, vec![vote("other")]).await;
        while matches!(history.answers.lock().last(), Some(None)) {
            tokio::task::yield_now().await;
        }
        // Another group's went on, so the writer has looked at both.
        assert!(wal.stats().storage_full);
        let next_term = history.answers.lock()[history.submitted.len() - 2].clone();
        assert!(next_term.is_none(), "entries before it still wait");
        disk.set_capacity(None);
        settle(&history).await;
        history.check(&wal);
    });
}

/// As when a checkpoint of a later leader takes the place of a log's end: the end is cut, and the log purged behind it.
#[test]
fn a_cut_goes_on_and_the_purge_behind_it_never_before_it() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        disk.set_capacity(Some(7 * (16 << 10)));
        let mut history = History::default();
        for index in 0..10 {
            history.submit(&wal, 2, vec![append(index, "old")]).await;
        }
        settle(&history).await;
        fill(&wal, &mut history).await;
        let cut = history.submitted.len();
        history.submit(&wal, 2, vec![truncate(5)]).await;
        history.submit(&wal, 2, vec![purge(7)]).await;
        answered(&history, cut).await;
        answered(&history, cut + 1).await;
        assert!(wal.stats().storage_full);
        // Where entries wait before a cut, a purge that could go alone waits with it.
        let waiting = history.submitted.len();
        history.submit(&wal, 1, vec![truncate(2)]).await;
        history.submit(&wal, 1, vec![purge(1)]).await;
        history.submit(&wal, 0, vec![vote("other")]).await;
        answered(&history, waiting + 2).await;
        assert!(history.answers.lock()[waiting + 1].is_none());
        disk.set_capacity(None);
        settle(&history).await;
        history.check(&wal);
        wal.close().await;
        let (wal, _) = open(&disk).unwrap();
        history.check(&wal);
        assert_eq!(wal.bounds(GroupId(2)).last, None);
        assert_eq!(wal.bounds(GroupId(1)).last, None);
    });
}
