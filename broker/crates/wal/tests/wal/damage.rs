//! Flipped bits: below a position known durable they are named, with what to do; in the very last
//! group without a marker they cannot be told from a torn tail.

use std::path::{Path, PathBuf};

use highwater_env::{Disk, DiskFile, Loss, OpenMode, SimDisk};
use highwater_wal::{GroupId, LogIndex, WalOpenError, WalReadError};

use crate::model::Model;
use crate::support::{DIR, append, open, purge, run, vote};

const G: GroupId = GroupId(1);
const FIRST_GROUP: u64 = 4096;

/// Three files of log; the last group is followed by a marker if the log was closed.
fn filled(close: bool) -> SimDisk {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        for index in 0..34 {
            wal.write(G, vec![append(index, vec![9; 900]), vote("v")])
                .await
                .unwrap();
        }
        wal.write(GroupId(2), vec![append(0, "last")])
            .await
            .unwrap();
        if close {
            wal.close().await;
        } else {
            disk.stop_after(0);
        }
    });
    if close {
        disk
    } else {
        disk.crash(Loss::Everything)
    }
}

/// The log's files in the order of their use, with the end of what was written into each.
fn files(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let mut used = Vec::new();
    for path in disk.read_dir(Path::new(DIR)).unwrap() {
        let content = disk.content(&path).unwrap();
        let generation = u64::from_be_bytes(content[16..24].try_into().unwrap());
        let end = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        if generation > 0 {
            used.push((generation, path, end as u64));
        }
    }
    used.sort();
    used.into_iter().map(|(_, path, end)| (path, end)).collect()
}

fn flipped(disk: &SimDisk, path: &Path, offset: u64) -> SimDisk {
    let copy = disk.crash(Loss::Everything);
    copy.flip_bit(path, offset, (offset % 8) as u8).unwrap();
    copy
}

fn open_error(disk: &SimDisk) -> Option<WalOpenError> {
    run(async { open(disk).map(|_| ()).err() })
}

#[test]
fn a_flipped_bit_below_a_known_durable_position_is_named() {
    let disk = filled(true);
    let content = run(async { Model::of(&open(&disk).unwrap().0) });
    let files = files(&disk);
    assert_eq!(files.len(), 3);
    let mut named = 0;
    for (at, (path, end)) in files.iter().enumerate() {
        let marker = if at == 2 { 64 } else { 0 };
        for offset in (FIRST_GROUP..end.next_multiple_of(64) - marker).step_by(13) {
            let copy = flipped(&disk, path, offset);
            match open_error(&copy) {
                Some(WalOpenError::Damaged {
                    file,
                    offset: found,
                    durable_to,
                    ..
                }) => {
                    assert_eq!(file, *path);
                    assert!(found <= offset && offset < durable_to);
                    named += 1;
                }
                Some(error) => panic!("{error}"),
                // Padding behind a group means nothing.
                None => assert_eq!(run(async { Model::of(&open(&copy).unwrap().0) }), content),
            }
        }
    }
    assert!(named > 2000, "{named}");
}

#[test]
fn an_unreadable_file_header_is_named() {
    let disk = filled(true);
    let files = files(&disk);
    for offset in 0..40 {
        for (at, (path, _)) in files.iter().enumerate() {
            let error = open_error(&flipped(&disk, path, offset)).unwrap();
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
            assert!(text.contains("cluster replace"), "{text}");
            match error {
                WalOpenError::Damaged { offset: 0, .. } => assert_eq!(at, 2),
                WalOpenError::MissingFile { generation, .. } => {
                    assert_eq!(generation, at as u64 + 1)
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let disk = filled(true);
    let files = files(&disk);
    disk.remove_file(&files[1].0).unwrap();
    let error = open_error(&disk).unwrap();
    assert!(
        matches!(error, WalOpenError::MissingFile { generation: 2, .. }),
        "{error}"
    );
}

#[test]
fn the_very_last_group_without_a_marker_is_cut_and_reported() {
    let disk = filled(false);
    // The marker was written but never synced.
    let (path, end) = files(&disk).pop().unwrap();
    run(async {
        let copy = flipped(&disk, &path, end - 1);
        let (wal, recovery) = open(&copy).unwrap();
        let torn = recovery.torn_tail.unwrap();
        assert_eq!(torn.file, path);
        assert!(torn.offset < end && end <= torn.offset + torn.bytes);
        assert_eq!(wal.bounds(GroupId(2)).last, None);
        assert_eq!(wal.bounds(G).last, Some(LogIndex(33)));
        wal.write(GroupId(2), vec![append(0, "again")])
            .await
            .unwrap();
        drop(wal);
        let (wal, _) = open(&copy.crash(Loss::Everything)).unwrap();
        assert_eq!(wal.bounds(GroupId(2)).last, Some(LogIndex(0)));
    });
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_named_when_it_is_read() {
    let disk = filled(true);
    run(async {
        let (wal, _) = open(&disk).unwrap();
        let (path, _) = files(&disk).remove(0);
        disk.flip_bit(&path, FIRST_GROUP + 64 + 24 + 100, 1)
            .unwrap();
        let error = wal
            .read(G, LogIndex(0), LogIndex(3), usize::MAX)
            .unwrap_err();
        match &error {
            WalReadError::Damaged {
                file,
                offset,
                group,
                index,
            } => {
                assert_eq!((file, *offset), (&path, FIRST_GROUP + 64));
                assert_eq!((*group, *index), (G, LogIndex(0)));
            }
            other => panic!("{other}"),
        }
        assert!(error.to_string().contains("another replica"));
        assert_eq!(
            wal.read(G, LogIndex(1), LogIndex(3), usize::MAX)
                .unwrap()
                .len(),
            2
        );
    });
}

#[test]
fn an_unreadable_entry_blocks_recycling_until_it_is_purged() {
    let disk = SimDisk::new();
    run(async {
        let (wal, _) = open(&disk).unwrap();
        wal.write(GroupId(2), vec![append(0, "stuck and rotten")])
            .await
            .unwrap();
        let (path, _) = files(&disk).remove(0);
        disk.flip_bit(&path, FIRST_GROUP + 64 + 24, 1).unwrap();
        for index in 0..100 {
            wal.write(G, vec![append(index, vec![3; 1000]), purge(index)])
                .await
                .unwrap();
        }
        assert!(wal.stats().recycling_blocked && wal.stats().recycled_files == 0);
        wal.write(GroupId(2), vec![purge(0)]).await.unwrap();
        while wal.stats().files > 2 {
            tokio::task::yield_now().await;
        }
        assert!(!wal.stats().recycling_blocked);
    });
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let disk = filled(true);
    let (path, _) = files(&disk).remove(0);
    let file = disk.open(&path, OpenMode::Write).unwrap();
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8..16].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 0]);
    let crc = crc32fast::hash(&header);
    header[12..16].copy_from_slice(&crc.to_be_bytes());
    file.write_at(&header, 0).unwrap();
    let error = open_error(&disk).unwrap();
    assert!(matches!(
        error,
        WalOpenError::UnsupportedVersion {
            version: 9,
            known: 1,
            ..
        }
    ));
}
