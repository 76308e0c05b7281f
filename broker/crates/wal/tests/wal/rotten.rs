//! Rot below a position known durable, and a start after it: the log is opened if nothing needed is
//! lost, and only then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use highwater_env::{Disk, SimDisk};
use highwater_wal::{
    Bounds, GroupId, LogIndex, Op, Recovery, Wal, WalConfig, WalOpenError, WalReadError,
};

use crate::support::{DIR, Fatal, SimEnv, append, config, open_with, purge, run, vote};

const G: GroupId = GroupId(1);
const FIRST_GROUP: u64 = 4096;
/// Checkpoints hold the entries of every group up to this one.
const COVERED: u64 = 20;

fn covering(upto: Option<u64>) -> WalConfig {
    WalConfig {
        covered: Arc::new(move |_| upto.map(LogIndex)),
        ..config(&Fatal::default())
    }
}

fn open(disk: &SimDisk, upto: Option<u64>) -> Result<(Wal<SimEnv>, Recovery), WalOpenError> {
    open_with(disk, covering(upto))
}

/// Three files of log with votes and everything else, and a marker at the end.
fn filled() -> SimDisk {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk, None).unwrap();
        let write = async |group, ops| wal.write(GroupId(group), ops).await.unwrap();
        write(0, vec![vote("of an idle group")]).await;
        write(3, vec![append(5, "forgotten"), Op::Forget]).await;
        write(2, vec![append(0, "a"), append(1, "b"), append(2, "cut")]).await;
        write(2, vec![Op::Truncate { from: LogIndex(2) }, vote("late")]).await;
        for index in 0..34 {
            let entry = append(index, vec![index as u8; 900]);
            write(1, vec![entry, vote(&format!("vote {index}"))]).await;
            if index % 8 == 0 && index > 0 {
                write(1, vec![purge(index * 3 / 8)]).await;
            }
        }
        write(2, vec![append(2, "instead")]).await;
        wal.close().await;
    });
    disk
}

/// The used part of each file.
fn places(disk: &SimDisk) -> Vec<(std::path::PathBuf, u64)> {
    let mut places = Vec::new();
    for path in disk.read_dir(Path::new(DIR)).unwrap() {
        let content = disk.content(&path).unwrap();
        if content[16..24] != [0; 8] {
            let end = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
            places.push((path, end + 1));
        }
    }
    places
}

/// What every group has, and each of its entries that can be read.
type Content = BTreeMap<GroupId, (Bounds, BTreeMap<u64, Vec<u8>>)>;

fn content(wal: &Wal<SimEnv>) -> Content {
    let mut content = Content::new();
    for id in wal.groups() {
        let bounds = wal.bounds(id);
        let mut entries = BTreeMap::new();
        let (first, last) = (bounds.first.unwrap(), bounds.last.unwrap());
        for index in first.0..=last.0 {
            match wal.read(id, LogIndex(index), LogIndex(index + 1), 0) {
                Ok(read) => {
                    entries.insert(index, read[0].1.to_vec());
                }
                Err(WalReadError::Damaged { index: at, .. }) => {
                    assert!(at.0 == index && bounds.unreadable >= Some(at));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let bounds = Bounds {
            unreadable: None,
            ..bounds
        };
        content.insert(id, (bounds, entries));
    }
    content
}

#[test]
fn wherever_it_rotted_no_vote_is_lost_and_no_entry_that_no_checkpoint_holds() {
    let disk = filled();
    // Entries of an idle group's vote alone: without them `content` has nothing to read.
    let idle = GroupId(0);
    let of = |wal: &Wal<SimEnv>| {
        let vote = wal.bounds(idle).states;
        assert_eq!(vote.len(), 1);
        vote
    };
    let whole = run(async {
        let (wal, _) = open(&disk.kill(), None).unwrap();
        wal.write(idle, vec![append(0, "for the test")])
            .await
            .unwrap();
        (content(&wal), of(&wal))
    });
    let (mut opened, mut without, mut refused) = (0, 0, 0);
    for (path, end) in places(&disk) {
        for offset in (0..64).chain((FIRST_GROUP..end).step_by(3)) {
            let copy = disk.kill();
            copy.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
            run(async {
                let (wal, recovery) = match open(&copy, Some(COVERED)) {
                    Ok(opened) => opened,
                    Err(WalOpenError::Damaged { .. } | WalOpenError::MissingFile { .. }) => {
                        refused += 1;
                        return;
                    }
                    Err(error) => panic!("{offset}: {error}"),
                };
                opened += 1;
                without += recovery.bad.len();
                wal.write(idle, vec![append(0, "for the test")])
                    .await
                    .unwrap();
                assert_eq!(of(&wal), whole.1);
                let found = content(&wal);
                assert_eq!(found.len(), whole.0.len());
                for (id, (bounds, entries)) in &whole.0 {
                    let (there, read) = &found[id];
                    assert_eq!(there, bounds, "{offset}");
                    for (index, entry) in entries {
                        match read.get(index) {
                            Some(read) => assert_eq!(read, entry),
                            None => assert!(*index <= COVERED && !recovery.bad.is_empty()),
                        }
                    }
                }
            });
        }
    }
    assert!(without > 2_500, "{opened} {without} {refused}");
    assert!(refused > 2_500, "{opened} {without} {refused}");
}

/// Flips a bit of the payload of group 1's entry `index`.
fn rotten(disk: &SimDisk, index: u8) -> SimDisk {
    let copy = disk.kill();
    let payload = vec![index; 900];
    for (path, _) in places(disk) {
        let content = disk.content(&path).unwrap();
        if let Some(at) = content.windows(900).position(|bytes| bytes == payload) {
            copy.flip_bit(&path, at as u64 + 450, 3).unwrap();
            return copy;
        }
    }
    panic!("no entry {index}");
}

#[test]
fn an_entry_is_done_without_as_far_as_a_checkpoint_goes() {
    let disk = filled();
    run(async {
        // Purged: nobody needs a checkpoint for it.
        let (wal, recovery) = open(&rotten(&disk, 12), None).unwrap();
        assert_eq!((recovery.bad.len(), wal.bounds(G).unreadable), (1, None));
        for (index, covered) in [(14, Some(14)), (20, Some(20)), (30, Some(33))] {
            let copy = rotten(&disk, index);
            let (wal, recovery) = open(&copy, covered).unwrap();
            assert_eq!(recovery.bad[0].group, Some(G));
            let bad = LogIndex(index.into());
            assert_eq!(wal.bounds(G).unreadable, Some(bad));
            // It stays so, until a purge.
            let (wal, _) = open(&copy, covered).unwrap();
            let ops = vec![append(34, "new"), purge(index.into())];
            wal.write(G, ops).await.unwrap();
            assert_eq!(wal.bounds(G).unreadable, None);
            wal.renew().await.unwrap();
            let (wal, recovery) = open(&copy.kill(), None).unwrap();
            assert!(recovery.bad.is_empty());
            let from = bad.next();
            let rest = wal.read(G, from, LogIndex(35), usize::MAX).unwrap();
            assert_eq!(rest.len() as u64, 34 - u64::from(index));
        }
        for covered in [None, Some(29)] {
            let error = open(&rotten(&disk, 30), covered).map(drop).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("entry") && text.contains("cluster replace"));
            assert!(!text.contains('\n'), "one line: {text}");
        }
    });
}

#[test]
fn a_torn_group_is_cut_and_never_done_without() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk, None).unwrap();
        for index in 0..3 {
            wal.write(G, vec![append(index, vec![index as u8 + 1; 900])])
                .await
                .unwrap();
        }
    });
    // As if the last group had reached the disk in part: nothing behind it says that it was durable.
    let copy = rotten(&disk, 3);
    let (path, _) = places(&copy).remove(0);
    let content = copy.content(&path).unwrap();
    let marker = content.iter().rposition(|byte| *byte != 0).unwrap() / 64 * 64;
    for byte in 0..64 {
        for bit in 0..8 {
            if content[marker + byte] >> bit & 1 == 1 {
                copy.flip_bit(&path, (marker + byte) as u64, bit).unwrap();
            }
        }
    }
    run(async {
        let (wal, recovery) = open(&copy, Some(COVERED)).unwrap();
        assert!(recovery.torn_tail.is_some() && recovery.bad.is_empty());
        assert_eq!(wal.bounds(G).last, Some(LogIndex(1)));
    });
}
