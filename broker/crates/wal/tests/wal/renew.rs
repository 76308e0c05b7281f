//! A log that is written anew: what is needed is kept at every crash point, and what had rotted is
//! nobody's afterwards.

use std::path::{Path, PathBuf};

use highwater_env::{Disk, Loss, SimDisk};
use highwater_wal::{GroupId, LogChecked, RenewError, Wal, WalOpenError};

use crate::model::Model;
use crate::support::{
    DIR, History, Numbers, SimEnv, append, open, purge, run, settle, vote, workload,
};

const FIRST_GROUP: u64 = 4096;

/// The log's files in the order of their use, with the end of what was written into each.
fn files(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let mut used = Vec::new();
    // Nothing of a disk that has stopped.
    for path in disk.read_dir(Path::new(DIR)).unwrap_or_default() {
        let content = disk.content(&path).unwrap_or_else(|_| vec![0; 24]);
        let generation = u64::from_be_bytes(content[16..24].try_into().unwrap());
        let end = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        if generation > 0 {
            used.push((generation, path, end as u64));
        }
    }
    used.sort();
    used.into_iter().map(|(_, path, end)| (path, end)).collect()
}

/// What a walk over the log finds.
fn walk(wal: &Wal<SimEnv>) -> (u64, Vec<String>) {
    let (mut check, mut bytes, mut found) = (wal.check(), 0, Vec::new());
    loop {
        match check.step(1000) {
            LogChecked::Some(read) => bytes += read,
            LogChecked::Bad(place) => found.push(place.to_string()),
            LogChecked::End => return (bytes, found),
        }
    }
}

/// A vote of an idle group, an entry that stays, and a group that is purged.
async fn filled(wal: &Wal<SimEnv>) {
    wal.write(GroupId(0), vec![vote("idle")]).await.unwrap();
    wal.write(GroupId(2), vec![append(0, "stays")])
        .await
        .unwrap();
    for index in 0..34 {
        wal.write(GroupId(1), vec![append(index, vec![9; 900]), vote("v")])
            .await
            .unwrap();
    }
    wal.write(GroupId(1), vec![purge(33)]).await.unwrap();
}

#[test]
fn what_is_needed_moves_and_what_had_rotted_is_gone() {
    // The header of a file, of a group, a vote, an entry that was purged.
    for (file, offset) in [
        (0, 3),
        (0, FIRST_GROUP + 2),
        (0, FIRST_GROUP + 88),
        (0, 9_000),
        (1, 20),
    ] {
        let disk = SimDisk::new();
        run(async {
            let (wal, _) = open(&disk).unwrap();
            // All of it stays in one file: nothing is recycled before it is asked for.
            wal.write(GroupId(0), vec![vote("idle")]).await.unwrap();
            wal.write(GroupId(2), vec![append(0, "stays")])
                .await
                .unwrap();
            for index in 0..17 {
                let ops = vec![append(index, vec![9; 900]), vote("v")];
                wal.write(GroupId(1), ops).await.unwrap();
            }
            let content = Model::of(&wal);
            let files = files(&disk);
            let (path, end) = &files[file];
            assert!(offset < *end, "{offset} of {end}");
            disk.flip_bit(path, offset, 1).unwrap();
            let found = walk(&wal).1;
            assert_eq!(found.len(), 1, "{offset}");
            let entry = offset == 9_000;
            assert_eq!(found[0].contains("group 1"), entry, "{found:?}");
            wal.write(GroupId(1), vec![purge(16)]).await.unwrap();
            wal.renew().await.unwrap();
            assert_eq!(walk(&wal).1, Vec::<String>::new(), "{offset}");
            let after = Model::of(&wal);
            assert_eq!(after.groups[&GroupId(0)], content.groups[&GroupId(0)]);
            assert_eq!(after.groups[&GroupId(2)], content.groups[&GroupId(2)]);
            for copy in [disk.kill(), disk.crash(Loss::Everything)] {
                let (again, recovery) = open(&copy).unwrap();
                assert_eq!((Model::of(&again), recovery.bad.len()), (after.clone(), 0));
            }
        });
    }
}

#[test]
fn a_renewal_waits_for_the_purge_of_what_is_unreadable() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        wal.write(GroupId(2), vec![append(0, "needed and rotten")])
            .await
            .unwrap();
        let (path, _) = files(&disk).remove(0);
        disk.flip_bit(&path, FIRST_GROUP + 64 + 24, 1).unwrap();
        let refused = wal.renew().await.unwrap_err();
        assert!(
            matches!(refused, RenewError::NotYet { unreadable: true }),
            "{refused}"
        );
        // Another one's entries go on meanwhile, and are in the same file.
        wal.write(GroupId(1), vec![append(0, "new")]).await.unwrap();
        for _ in 0..5 {
            assert!(wal.renew().await.is_err());
        }
        assert_eq!(
            wal.stats().files,
            2,
            "one more file, not one for each attempt"
        );
        wal.write(GroupId(2), vec![purge(0)]).await.unwrap();
        wal.renew().await.unwrap();
        assert_eq!(walk(&wal).1, Vec::<String>::new());
        let content = Model::of(&wal);
        assert_eq!(content.groups[&GroupId(1)].entries.len(), 1);
        assert_eq!(Model::of(&open(&disk.kill()).unwrap().0), content);
        wal.clone().close().await;
        assert!(matches!(
            wal.renew().await.unwrap_err(),
            RenewError::Ended(_)
        ));
    });
}

#[test]
fn a_full_disk_puts_a_renewal_off() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        filled(&wal).await;
        let content = Model::of(&wal);
        disk.set_capacity(Some(disk.used_bytes()));
        // The files kept ready are used first.
        while wal.renew().await.is_ok() {
            assert!(wal.stats().files < 10);
            if wal.stats().recycled_files > 20 {
                break;
            }
        }
        assert_eq!(Model::of(&wal), content);
        disk.set_capacity(None);
        wal.renew().await.unwrap();
        assert_eq!(Model::of(&open(&disk.kill()).unwrap().0), content);
    });
}

/// Workloads with renewals between and beside them, until the disk stops. Whether the last renewal
/// was answered.
async fn session(disk: &SimDisk, seed: u64, rot: bool) -> (History, bool) {
    let mut history = History::default();
    let mut numbers = Numbers(seed);
    let Ok((wal, _)) = open(disk) else {
        return (history, false);
    };
    workload(&wal, &mut history, &mut numbers, 25).await;
    if rot {
        // A group's header: without a renewal no start gets past it. Not in the newest file: what is
        // last there cannot be told from a torn tail.
        if let [.., (path, _), _] = files(disk).as_slice() {
            let _ = disk.flip_bit(path, FIRST_GROUP + 9, 1);
        }
    }
    let beside = workload(&wal, &mut history, &mut numbers, 25);
    let (renewed, ()) = tokio::join!(wal.renew(), beside);
    let renewed = renewed.is_ok();
    settle(&history).await;
    workload(&wal, &mut history, &mut numbers, 5).await;
    (history, renewed)
}

fn losses(stop: u64) -> [Loss; 3] {
    [
        Loss::Everything,
        Loss::Random { seed: stop },
        Loss::Random { seed: !stop },
    ]
}

#[test]
fn every_crash_point_of_a_renewal_keeps_what_was_acknowledged() {
    for seed in [1, 2, 3] {
        let whole = SimDisk::new();
        let (history, renewed) = run(session(&whole, seed, false));
        assert!(renewed);
        assert!(history.acknowledged() > 40);
        for stop in 0..whole.calls() {
            let disk = SimDisk::new();
            disk.stop_after(stop);
            let (before, _) = run(session(&disk, seed, false));
            for loss in losses(stop) {
                let copy = disk.crash(loss);
                run(async {
                    let mut history = before.again();
                    let (wal, _) = open(&copy).unwrap_or_else(|error| panic!("{loss:?}: {error}"));
                    history.check(&wal);
                    // Renewed once more, from wherever it was.
                    wal.renew().await.unwrap();
                    workload(&wal, &mut history, &mut Numbers(stop), 5).await;
                    wal.close().await;
                    history.check(&open(&copy.kill()).unwrap().0);
                });
            }
        }
    }
}

#[test]
fn rot_stops_no_start_once_a_renewal_was_answered() {
    let (mut named, mut whole_again) = (0, 0);
    for seed in [4, 5] {
        let whole = SimDisk::new();
        assert!(run(session(&whole, seed, true)).1);
        for stop in 0..whole.calls() {
            let disk = SimDisk::new();
            disk.stop_after(stop);
            let (before, renewed) = run(session(&disk, seed, true));
            for loss in losses(stop) {
                let copy = disk.crash(loss);
                run(async {
                    let mut history = before.again();
                    match open(&copy) {
                        Ok((wal, _)) => {
                            history.check(&wal);
                            whole_again += u32::from(renewed);
                        }
                        Err(WalOpenError::Damaged { .. }) if !renewed => named += 1,
                        Err(error) => panic!("{stop} {loss:?} {renewed}: {error}"),
                    }
                });
            }
        }
    }
    assert!(named > 100 && whole_again > 20, "{named} {whole_again}");
}

#[test]
fn a_walk_finds_every_bit_that_a_start_would() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        filled(&wal).await;
        let (bytes, found) = walk(&wal);
        assert_eq!(found, Vec::<String>::new());
        assert!(bytes > 30_000, "{bytes}");
        wal.close().await;
    });
    let mut found = 0;
    for (path, end) in files(&disk) {
        let whole = run(async { Model::of(&open(&disk.kill()).unwrap().0) });
        for offset in (0..40).chain((FIRST_GROUP..end).step_by(17)) {
            let copy = disk.kill();
            run(async {
                let (wal, _) = open(&copy).unwrap();
                copy.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
                let bad = walk(&wal).1;
                let again = open(&copy.kill());
                match again {
                    Ok((again, recovery)) => {
                        assert!(recovery.bad.len() <= bad.len(), "{offset}: {bad:?}");
                        assert_eq!(Model::of(&again), whole);
                    }
                    Err(error) => assert!(!bad.is_empty(), "{offset}: {error}"),
                }
                found += bad.len();
            });
        }
    }
    assert!(found > 1000, "{found}");
}
