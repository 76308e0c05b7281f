//! Every file call fails in turn: everybody who waits is answered with the error, `on_fatal` is
//! called once, nothing is acknowledged afterwards, and nothing acknowledged is lost.

use std::io;
use std::sync::atomic::Ordering;

use highwater_env::{CallKind, Loss, SimDisk};
use highwater_wal::{GroupId, WalError, WalOpenError};

use crate::support::{
    Fatal, History, Numbers, append, config, open, open_with, run, vote, workload,
};

const SUBMISSIONS: usize = 80;

async fn session(disk: &SimDisk, fatal: &Fatal) -> Option<History> {
    let (wal, _) = match open_with(disk, config(fatal)) {
        Ok(opened) => opened,
        Err(WalOpenError::Io { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let mut history = History::default();
    workload(&wal, &mut history, &mut Numbers(5), SUBMISSIONS).await;
    let failure = wal.failure();
    wal.clone().close().await;
    let told = fatal.load(Ordering::SeqCst);
    match failure.or(wal.failure()) {
        Some(WalError::Io { .. }) => assert_eq!(told, 1),
        other => assert_eq!((other.is_some(), told), (false, 0)),
    }
    let answers = history.answers.lock().clone();
    for answer in answers.iter().flatten().skip(history.acknowledged()) {
        assert!(matches!(answer, Err(WalError::Io { .. })), "{answer:?}");
    }
    Some(history)
}

#[test]
fn each_call_failing_ends_the_log_once_and_loses_nothing_acknowledged() {
    let whole = SimDisk::new();
    run(session(&whole, &Fatal::default())).unwrap();
    let mut failed = 0;
    for nth in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_after(nth, io::ErrorKind::Other);
        let fatal = Fatal::default();
        let Some(mut history) = run(session(&disk, &fatal)) else {
            continue;
        };
        failed += fatal.load(Ordering::SeqCst);
        // The process ends, is started again and sees the page cache; then the power fails.
        disk.clear_faults();
        run(async {
            let (wal, _) = open(&disk).unwrap();
            history.check(&wal);
            if nth % 2 == 0 {
                workload(&wal, &mut history, &mut Numbers(nth), 6).await;
            }
        });
        let disk = disk.crash(Loss::Everything);
        run(async { history.check(&open(&disk).unwrap().0) });
    }
    assert!(
        failed > 100,
        "{failed} calls were made to fail on the writer"
    );
}

/// A log that was closed, and one whose process ended without: what is opened differs.
fn left_behind(closed: bool) -> (SimDisk, History) {
    let disk = SimDisk::new();
    let history = run(async {
        let (wal, _) = open(&disk).unwrap();
        let mut history = History::default();
        workload(&wal, &mut history, &mut Numbers(11), SUBMISSIONS).await;
        if closed {
            wal.close().await;
        } else {
            disk.stop_after(0);
        }
        history
    });
    (disk, history)
}

#[test]
fn each_call_failing_while_a_log_is_opened_loses_nothing() {
    for closed in [true, false] {
        let (disk, history) = left_behind(closed);
        let copy = || {
            if closed {
                disk.crash(Loss::Everything)
            } else {
                disk.kill()
            }
        };
        let whole = copy();
        run(async { drop(open(&whole).unwrap()) });
        let mut refused = 0;
        for nth in 0..whole.calls() {
            let disk = copy();
            disk.fail_after(nth, io::ErrorKind::Other);
            run(async {
                match open(&disk) {
                    Ok((wal, _)) => history.again().check(&wal),
                    Err(error @ WalOpenError::Io { .. }) => {
                        assert!(error.to_string().contains("cluster replace"), "{error}");
                        refused += 1;
                    }
                    Err(error) => panic!("call {nth}: {error}"),
                }
            });
            // The next process finds what was there, and so does the one after a loss of power.
            disk.clear_faults();
            let mut after = history.again();
            run(async { after.check(&open(&disk).unwrap().0) });
            let disk = disk.crash(Loss::Everything);
            run(async { after.check(&open(&disk).unwrap().0) });
        }
        assert!(
            refused > 10,
            "{refused} calls of an opening were made to fail"
        );
    }
}

#[test]
fn a_failed_sync_is_never_retried_and_says_what_failed() {
    run(async {
        let disk = SimDisk::new();
        let fatal = Fatal::default();
        let (wal, _) = open_with(&disk, config(&fatal)).unwrap();
        wal.write(GroupId(1), vec![append(0, "kept")])
            .await
            .unwrap();
        disk.start_trace();
        disk.fail_next(CallKind::SyncData, io::ErrorKind::Other);
        let error = wal
            .write(GroupId(1), vec![append(1, "lost")])
            .await
            .unwrap_err();
        assert!(matches!(&error, WalError::Io { call: "sync", .. }));
        assert!(error.to_string().contains("/data/wal/"), "{error}");
        let again = wal
            .write(GroupId(1), vec![vote("later")])
            .await
            .unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        wal.close().await;
        let syncs = disk
            .trace()
            .iter()
            .filter(|call| call.kind == CallKind::SyncData)
            .count();
        assert_eq!((syncs, fatal.load(Ordering::SeqCst)), (1, 1));
    });
}

#[test]
fn a_full_disk_at_any_call_is_no_reason_to_stop_where_a_file_is_made() {
    let whole = SimDisk::new();
    whole.start_trace();
    run(session(&whole, &Fatal::default())).unwrap();
    for (nth, call) in whole.trace().iter().enumerate() {
        if call.kind != CallKind::Allocate {
            continue;
        }
        let disk = SimDisk::new();
        disk.fail_after(nth as u64, io::ErrorKind::StorageFull);
        let fatal = Fatal::default();
        if let Some(history) = run(session(&disk, &fatal)) {
            assert_eq!(fatal.load(Ordering::SeqCst), 0);
            assert_eq!(history.acknowledged(), SUBMISSIONS);
        }
    }
}
