//! A log that was opened although an entry had rotted: what goes, and when it is refused.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_env::{Env as _, Loss, SimDisk};
use highwater_wal::{Wal, WalConfig};

use super::*;
use crate::entry::to_stored;
use crate::journal::WalJournal;
use crate::testing::{SimEnv, command};
use crate::types::{Command, Entry, log_id};

const GROUP: ShardId = ShardId(3);
const ID: GroupId = GroupId(3);

const DIR: &str = "/wal";

fn open(disk: &SimDisk) -> WalJournal<SimEnv> {
    let env = SimEnv { disk: disk.clone() };
    let config = WalConfig {
        file_bytes: 1 << 20,
        covered: Arc::new(|_| Some(LogIndex(u64::MAX))),
        ..WalConfig::default()
    };
    let (wal, _) = Wal::open(&env, Path::new(DIR), config).unwrap();
    let workers = env.workers();
    WalJournal { wal, workers }
}

fn entry(term: u64, index: u64) -> Op {
    let entry = Entry {
        log_id: log_id(term, index),
        payload: openraft::EntryPayload::Normal(Command(command("w", 0, 500))),
    };
    Op::Append {
        index: LogIndex(index),
        payload: to_stored(&entry, &mut BytesMut::new()),
    }
}

/// A log of entries 0 to 9 of term 2 in which some have rotted.
async fn rotten(bad: &[u64]) -> SimDisk {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let ops = (0..10).map(|index| entry(2, index)).collect();
    journal.wal.write(ID, ops).await.unwrap();
    journal.wal.close().await;
    let first = Path::new(DIR).join("0000000001.wal");
    for index in bad {
        // Behind the headers of file and group; each frame has a head, and the entry has its own.
        let at = 4096 + 64 + index * (24 + 18 + 500) + 24 + 18 + 100;
        disk.flip_bit(&first, at, 2).unwrap();
    }
    disk
}

#[tokio::test]
async fn what_a_checkpoint_covers_goes_and_the_rest_stays() {
    let disk = rotten(&[2, 4]).await;
    let journal = open(&disk);
    assert_eq!(journal.recovered(ID).unreadable, Some(4));
    give_up(&journal, GROUP, Some(log_id(2, 6))).await.unwrap();
    let recovered = journal.recovered(ID);
    assert_eq!(
        (recovered.unreadable, recovered.first_index),
        (None, Some(7))
    );
    assert_eq!(recovered.purged, Some(encode_log_id(&log_id(2, 6))));
    assert_eq!(journal.read(ID, 7, 10, usize::MAX).unwrap().len(), 3);
    // Durable: the next start finds nothing to do without.
    journal.wal.close().await;
    let journal = open(&disk.crash(Loss::Everything));
    assert_eq!(journal.recovered(ID).unreadable, None);
    give_up(&journal, GROUP, None).await.unwrap();
    journal.wal.close().await;
}

#[tokio::test]
async fn a_log_that_ends_within_the_checkpoint_is_empty_then() {
    let journal = open(&rotten(&[9]).await);
    give_up(&journal, GROUP, Some(log_id(4, 30))).await.unwrap();
    let recovered = journal.recovered(ID);
    assert_eq!((recovered.last_index, recovered.unreadable), (None, None));
    journal.wal.write(ID, vec![entry(4, 31)]).await.unwrap();
    journal.wal.close().await;
}

#[tokio::test]
async fn what_contradicts_the_checkpoint_goes_too() {
    let journal = open(&rotten(&[2]).await);
    // Installed from a leader of term 3; the entries from 6 on were never committed.
    give_up(&journal, GROUP, Some(log_id(3, 6))).await.unwrap();
    let recovered = journal.recovered(ID);
    assert_eq!((recovered.last_index, recovered.unreadable), (None, None));
    journal.wal.close().await;
}

#[tokio::test]
async fn without_proof_it_is_refused_and_nothing_is_cut() {
    for (bad, covered) in [
        (4, None),
        (4, Some(log_id(2, 3))),
        // Whether the log continues the checkpoint cannot be told.
        (4, Some(log_id(2, 4))),
    ] {
        let journal = open(&rotten(&[bad]).await);
        let refused = give_up(&journal, GROUP, covered).await.unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("cluster replace") && !text.contains('\n'),
            "{text}"
        );
        let recovered = journal.recovered(ID);
        assert_eq!(
            (recovered.first_index, recovered.last_index),
            (Some(0), Some(9))
        );
        journal.wal.close().await;
    }
}

#[tokio::test]
async fn a_power_loss_on_the_way_leaves_it_to_the_next_start() {
    let covered = Some(log_id(2, 6));
    let mut cut = 0;
    for stop in 0.. {
        let disk = rotten(&[2, 4]).await;
        let journal = open(&disk);
        disk.stop_after(stop);
        let given_up = give_up(&journal, GROUP, covered).await.is_ok();
        for loss in [Loss::Everything, Loss::Random { seed: stop }] {
            let journal = open(&disk.crash(loss));
            let unreadable = journal.recovered(ID).unreadable;
            assert!(unreadable.is_none() || !given_up, "{stop} {loss:?}");
            cut += u32::from(unreadable.is_some());
            give_up(&journal, GROUP, covered).await.unwrap();
            let recovered = journal.recovered(ID);
            assert_eq!(
                (recovered.unreadable, recovered.first_index),
                (None, Some(7))
            );
            assert_eq!(journal.read(ID, 7, 10, usize::MAX).unwrap().len(), 3);
            journal.wal.close().await;
        }
        if given_up {
            break;
        }
    }
    assert!(cut > 0);
}
