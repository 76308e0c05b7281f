//! Which failures of a replacement leave nothing known about what is durable.

use super::*;
use crate::{CallKind, SimDisk};

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
