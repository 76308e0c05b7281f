//! The simulated disk loses what it may lose, keeps what it must keep, and fails when told to.

use std::io;
use std::path::Path;

use super::*;
use crate::{read_if_exists, replace_durably};

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn file(disk: &SimDisk, name: &str) -> SimFile {
    let file = disk.open(Path::new(name), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    file
}

#[test]
fn content_is_durable_after_its_sync_alone() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    file.write_at(b"first", 0).unwrap();
    assert_eq!(disk.content(path).unwrap(), b"first");
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"");
    file.sync_data().unwrap();
    file.write_at(b"SECOND", 0).unwrap();
    assert_eq!(
        disk.crash(Loss::Everything).content(path).unwrap(),
        b"first"
    );
}

#[test]
fn a_name_is_durable_after_the_sync_of_its_directory_alone() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert!(disk.crash(Loss::Everything).content(path).is_err());
    disk.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"x");
    disk.remove_file(path).unwrap();
    assert!(!disk.exists(path).unwrap());
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"x");
    disk.sync_dir(Path::new("/data")).unwrap();
    assert!(disk.crash(Loss::Everything).content(path).is_err());
}

#[test]
fn a_directory_whose_name_is_lost_takes_its_files_along() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    file_in(&disk, "/a/b/f");
    disk.sync_dir(Path::new("/a/b")).unwrap();
    disk.sync_dir(Path::new("/a")).unwrap();
    assert!(
        !disk
            .crash(Loss::Everything)
            .exists(Path::new("/a/b/f"))
            .unwrap()
    );
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(
        disk.crash(Loss::Everything)
            .exists(Path::new("/a/b/f"))
            .unwrap()
    );
}

fn file_in(disk: &SimDisk, name: &str) {
    disk.open(Path::new(name), OpenMode::CreateNew).unwrap();
}

#[test]
fn random_losses_keep_any_version_of_a_sector_and_follow_the_seed() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[2; 1024], 0).unwrap();
    file.write_at(&[3; 1024], 0).unwrap();
    let mut firsts = [false; 4];
    let mut mixed = false;
    for seed in 0..200 {
        let content = disk.crash(Loss::Random { seed }).content(path).unwrap();
        assert_eq!(
            content,
            disk.crash(Loss::Random { seed }).content(path).unwrap()
        );
        firsts[usize::from(content[0])] = true;
        mixed |= content[0] != content[1023];
    }
    assert_eq!(firsts, [false, true, true, true]);
    assert!(mixed, "sectors are lost independently");
}

#[test]
fn a_failed_sync_drops_what_it_should_have_written_and_later_syncs_do_not_help() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    file.write_at(b"lost", 0).unwrap();
    disk.fail_next(CallKind::SyncData, io::ErrorKind::Other);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(
        disk.content(path).unwrap(),
        b"lost",
        "the cache still shows it"
    );
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), [0; 4]);
    file.write_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"kept");
}

#[test]
fn calls_fail_by_number_and_a_stopped_disk_changes_nothing() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    disk.fail_after(1, io::ErrorKind::PermissionDenied);
    file.write_at(b"abcd", 0).unwrap();
    let error = file.write_at(b"EFGH", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(
        disk.content(path).unwrap(),
        b"EFcd",
        "a failed write has written half"
    );
    disk.stop_after(0);
    file.write_at(b"....", 0).unwrap_err();
    file.sync_data().unwrap_err();
    disk.exists(path).unwrap_err();
    disk.clear_faults();
    assert_eq!(disk.content(path).unwrap(), b"EFcd");
    file.sync_data().unwrap();
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"EFcd");
}

#[test]
fn a_full_disk_says_so_and_room_comes_back() {
    let disk = disk();
    disk.set_capacity(Some(1000));
    let file = file(&disk, "/data/a");
    file.allocate(600).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 400);
    assert_eq!(
        file.allocate(1001).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    file.write_at(&[1; 600], 0).unwrap();
    assert_eq!(
        file.write_at(&[1], 1000).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    disk.remove_file(Path::new("/data/a")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 1000);
}

#[test]
fn lengths_bits_and_reads_at_the_end() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    file.write_at(&[7; 700], 0).unwrap();
    file.set_len(600).unwrap();
    file.set_len(700).unwrap();
    assert_eq!(disk.content(path).unwrap()[599..601], [7, 0]);
    let mut buf = [9; 8];
    assert_eq!(file.read_at(&mut buf, 696).unwrap(), 4);
    assert_eq!(file.read_at(&mut buf, 800).unwrap(), 0);
    file.sync_data().unwrap();
    disk.flip_bit(path, 5, 3).unwrap();
    assert_eq!(
        disk.crash(Loss::Everything).content(path).unwrap()[5],
        7 ^ 8
    );
}

#[test]
fn a_durable_replacement_is_old_or_new_at_every_crash_point() {
    let path = Path::new("/data/a.conf");
    for stop in 0..8 {
        for seed in 0..40 {
            let disk = disk();
            replace_durably(&disk, path, b"old content").unwrap();
            disk.stop_after(stop);
            let done = replace_durably(&disk, path, b"the new").is_ok();
            let after = disk.crash(Loss::Random { seed });
            let content = read_if_exists(&after, path).unwrap().unwrap();
            assert!(content == b"the new" || (!done && content == b"old content"));
        }
    }
}

#[test]
fn the_trace_names_every_call() {
    let disk = disk();
    disk.start_trace();
    let file = file(&disk, "/data/a");
    file.write_at(b"abc", 5).unwrap();
    let kinds: Vec<_> = disk.trace().iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [CallKind::Open, CallKind::SyncDir, CallKind::Write]);
    assert_eq!((disk.trace()[2].offset, disk.trace()[2].len), (5, 3));
    assert_eq!(disk.calls(), 5);
}

#[test]
fn a_killed_process_leaves_the_page_cache_and_the_power_loss_behind_it_does_not() {
    let disk = disk();
    let path = Path::new("/data/a");
    let file = file(&disk, "/data/a");
    file.write_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"cached", 0).unwrap();
    disk.remove_file(path).unwrap();
    let renamed = disk
        .open(Path::new("/data/b"), OpenMode::CreateNew)
        .unwrap();
    renamed.write_at(b"b", 0).unwrap();
    disk.rename(Path::new("/data/b"), Path::new("/data/c"))
        .unwrap();
    disk.fail_next(CallKind::Read, io::ErrorKind::Other);

    let next = disk.kill();
    assert!(!next.exists(path).unwrap());
    assert_eq!(next.content(Path::new("/data/c")).unwrap(), b"b");
    // What the dead process still did is not seen, and its faults are gone.
    renamed.write_at(b"x", 0).unwrap();
    let again = next.open(Path::new("/data/c"), OpenMode::Read).unwrap();
    let mut read = [0];
    again.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"b");
    // The name that was removed is still durable, with what was synced.
    let after = next.crash(Loss::Everything);
    assert_eq!(after.content(path).unwrap(), b"synced");
    assert!(!after.exists(Path::new("/data/c")).unwrap());
}

#[test]
fn a_sync_of_the_next_process_makes_durable_what_the_dead_one_wrote() {
    let disk = disk();
    let path = Path::new("/data/a");
    file(&disk, "/data/a").write_at(b"cached", 0).unwrap();
    let next = disk.kill();
    let file = next.open(path, OpenMode::Write).unwrap();
    file.sync_data().unwrap();
    let after = next.crash(Loss::Everything);
    assert_eq!(after.content(path).unwrap(), b"cached");
    assert_eq!(disk.crash(Loss::Everything).content(path).unwrap(), b"");
}

#[test]
fn open_files_are_counted() {
    let disk = disk();
    let one = file(&disk, "/data/a");
    drop(file(&disk, "/data/b"));
    assert_eq!(disk.open_files(), (1, 2));
    drop(one);
    assert_eq!(disk.open_files(), (0, 2));
    assert_eq!(disk.files().len(), 2);
    assert_eq!(disk.used_bytes(), 0);
}
