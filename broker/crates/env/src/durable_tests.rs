//! Which failures of a replacement leave nothing known about what is durable.

use super::*;
use crate::{CallKind, Loss, SimDisk};

fn failing(call: CallKind, kind: io::ErrorKind) -> io::Error {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).expect("directory");
    disk.fail_next(call, kind);
    replace_durably(&disk, Path::new("/d/f"), b"content").expect_err("injected")
}

#[test]
fn a_failed_sync_is_told_from_what_may_be_tried_again() {
    for call in [CallKind::SyncData, CallKind::SyncDir] {
        let error = failing(call, io::ErrorKind::Other);
        assert!(SyncFailed::is_in(&error), "{call:?}: {error}");
    }
    for call in [CallKind::Open, CallKind::Write, CallKind::Rename] {
        let error = failing(call, io::ErrorKind::Other);
        assert!(!SyncFailed::is_in(&error), "{call:?}: {error}");
    }
    let full = failing(CallKind::SyncData, io::ErrorKind::StorageFull);
    assert!(!SyncFailed::is_in(&full), "a full disk is no broken disk");
}

/// A disk on which the sync of a rename failed, as the next process finds it: it shows "new", and
/// has "old".
fn shows_what_it_does_not_have(path: &Path) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).expect("directory");
    disk.sync_dir(Path::new("/")).expect("synced");
    replace_durably(&disk, path, b"old").expect("replaced");
    disk.fail_next(CallKind::SyncDir, io::ErrorKind::Other);
    let error = replace_durably(&disk, path, b"new").expect_err("injected");
    assert!(SyncFailed::is_in(&error), "{error}");
    let next = disk.kill();
    let seen = read_if_exists(&next, path).expect("read");
    assert_eq!(seen.as_deref(), Some(&b"new"[..]));
    let durable = read_if_exists(&next.crash(Loss::Everything), path).expect("read");
    assert_eq!(durable.as_deref(), Some(&b"old"[..]));
    next
}

#[test]
fn what_is_settled_is_durable() {
    let path = Path::new("/d/f");
    let disk = shows_what_it_does_not_have(path);
    settle(&disk, path).expect("settled");
    let durable = read_if_exists(&disk.crash(Loss::Everything), path).expect("read");
    assert_eq!(durable.as_deref(), Some(&b"new"[..]));
    settle(&disk, Path::new("/d/none")).expect("nothing to do");
    assert!(!disk.exists(Path::new("/d/none")).expect("asked"));
}

#[test]
fn a_full_disk_settles_too() {
    let path = Path::new("/d/f");
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).expect("directory");
    disk.sync_dir(Path::new("/")).expect("synced");
    replace_durably(&disk, path, b"old").expect("replaced");
    // Killed between the rename and its sync.
    disk.stop_after(4);
    replace_durably(&disk, path, b"new").expect_err("stopped");
    let disk = disk.kill();
    let seen = read_if_exists(&disk, path).expect("read");
    assert_eq!(seen.as_deref(), Some(&b"new"[..]));
    disk.set_capacity(Some(disk.used_bytes()));
    settle(&disk, path).expect("settled");
    let durable = read_if_exists(&disk.crash(Loss::Everything), path).expect("read");
    assert_eq!(durable.as_deref(), Some(&b"new"[..]));
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::TrustsTheCache,
        "durable::tests::what_is_settled_is_durable",
    );
}
