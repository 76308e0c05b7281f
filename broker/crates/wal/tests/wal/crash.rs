//! Power loss after every single file call: what was acknowledged is there, what was not is there
//! only as a prefix, and a power loss alone is never taken for damage.

use highwater_env::{Loss, SimDisk};
use highwater_wal::WalOpenError;

use crate::support::{History, Numbers, open, run, workload};

const SUBMISSIONS: usize = 45;

/// A run with one restart in the middle, until the disk stops.
async fn session(disk: &SimDisk, seed: u64) -> History {
    let mut history = History::default();
    let mut numbers = Numbers(seed);
    for _ in 0..2 {
        let (wal, _) = match open(disk) {
            Ok(opened) => opened,
            Err(WalOpenError::Io { .. }) => return history,
            Err(error) => panic!("{error}"),
        };
        history.check(&wal);
        workload(&wal, &mut history, &mut numbers, SUBMISSIONS).await;
        wal.close().await;
    }
    history
}

fn losses(stop: u64) -> [Loss; 4] {
    let seed = |n| Loss::Random {
        seed: stop * 31 + n,
    };
    [Loss::Everything, seed(1), seed(2), seed(3)]
}

#[test]
fn every_crash_point_keeps_what_was_acknowledged() {
    for seed in [1, 2] {
        let whole = SimDisk::new();
        let history = run(session(&whole, seed));
        assert_eq!(history.acknowledged(), 2 * SUBMISSIONS);
        for stop in 0..whole.calls() {
            let disk = SimDisk::new();
            disk.stop_after(stop);
            let history = run(session(&disk, seed));
            for loss in losses(stop) {
                survive(&disk, loss, &history, seed ^ stop);
            }
        }
    }
}

/// Recovers, goes on, loses power again in the middle of that, and recovers once more.
fn survive(disk: &SimDisk, loss: Loss, before: &History, seed: u64) {
    let mut history = History {
        submitted: before.submitted.clone(),
        ..History::default()
    };
    history.answers.lock().clone_from(&before.answers.lock());
    let disk = disk.crash(loss);
    run(async {
        let (wal, _) = open(&disk).unwrap_or_else(|error| panic!("{loss:?}: {error}"));
        history.check(&wal);
        disk.stop_after(seed % 40);
        workload(&wal, &mut history, &mut Numbers(seed), 12).await;
        wal.close().await;
    });
    let disk = disk.crash(Loss::Random { seed });
    run(async {
        let (wal, _) = open(&disk).unwrap_or_else(|error| panic!("second, {loss:?}: {error}"));
        history.check(&wal);
    });
}

#[test]
fn power_lost_again_and_again_while_opening_loses_nothing() {
    let mut disk = SimDisk::new();
    let mut history = run(session(&disk, 3));
    for round in 0..400 {
        disk.stop_after(round % 60);
        run(async {
            match open(&disk) {
                Ok((wal, _)) => {
                    history.check(&wal);
                    workload(&wal, &mut history, &mut Numbers(round), 5).await;
                }
                Err(WalOpenError::Io { .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
        });
        disk = disk.crash(Loss::Random { seed: round });
    }
}
