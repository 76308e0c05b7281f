//! Faults strike, and are counted.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use highwater_powerfs::{ControlError, Fault, FaultId, FaultKind, Loss, Place};

use super::rig::{Rig, rig_or_skip};

fn set(rig: &Rig, pattern: &str, kind: FaultKind, times: Option<u64>) -> FaultId {
    let pattern = pattern.to_owned();
    let fault = Fault {
        pattern,
        kind,
        times,
    };
    rig.control().add_fault(fault).unwrap()
}

#[test]
fn a_sync_fails_once_and_a_later_one_does_not_help() {
    let rig = rig_or_skip!();
    fs::create_dir(rig.path("wal")).unwrap();
    rig.sync_dir("");
    let file = File::create(rig.path("wal/1")).unwrap();
    rig.sync_dir("wal");
    let fault = set(&rig, "wal/*", FaultKind::SyncError, Some(1));
    rig.sync_dir("wal"); // not matched: its path is "wal"
    file.write_all_at(b"lost", 0).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(fs::read(rig.path("wal/1")).unwrap(), b"lost");
    assert_eq!(rig.control().remove_fault(fault).unwrap().struck, 1);
    drop(file);
    rig.lose();
    assert_eq!(fs::read(rig.path("wal/1")).unwrap(), [0; 4]);
}

#[test]
fn no_space_for_writes_and_names_that_match() {
    let rig = rig_or_skip!();
    let file = File::create(rig.path("full")).unwrap();
    set(&rig, "full*", FaultKind::NoSpace, None);
    let full = Some(28);
    assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), full);
    let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10);
    assert_eq!(allocated.map_err(|error| error.raw_os_error()), Err(28));
    let made = File::create(rig.path("full too")).unwrap_err();
    assert_eq!(made.raw_os_error(), full);
    fs::write(rig.path("other"), b"fits").unwrap();
    let cleared = rig.control().clear_faults().unwrap();
    assert_eq!(
        cleared.iter().map(|fault| fault.struck).collect::<Vec<_>>(),
        [3]
    );
    file.write_at(b"x", 0).unwrap();
}

#[test]
fn a_slow_sync_holds_nobody_else_up() {
    let rig = rig_or_skip!();
    let file = File::create(rig.path("slow")).unwrap();
    set(&rig, "slow", FaultKind::SlowSync { millis: 300 }, Some(1));
    let began = Instant::now();
    file.sync_data().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    // So long that this test fails if anything waits for it.
    let fault = set(
        &rig,
        "slow",
        FaultKind::SlowSync { millis: 3_600_000 },
        None,
    );
    std::thread::scope(|scope| {
        let stalled: Vec<_> = (0..8).map(|_| scope.spawn(|| file.sync_data())).collect();
        let mut control = rig.control();
        let struck = |control: &mut highwater_powerfs::Control| {
            control
                .stats()
                .unwrap()
                .faults
                .iter()
                .find(|f| f.id == fault)
                .unwrap()
                .struck
        };
        while struck(&mut control) < 1 {
            std::thread::yield_now();
        }
        fs::write(rig.path("other"), b"goes on").unwrap();
        File::open(rig.path("other")).unwrap().sync_all().unwrap();
        // One of them can still be on its way, and is then not slow.
        control.clear_faults().unwrap();
        for sync in stalled {
            sync.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_power_loss_ends_stalled_syncs_and_what_they_were_for() {
    let rig = rig_or_skip!();
    let file = File::create(rig.path("a")).unwrap();
    rig.sync_dir("");
    let slow = FaultKind::SlowSync { millis: 3_600_000 };
    set(&rig, "a", slow, Some(1));
    file.write_all_at(b"never synced", 0).unwrap();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| file.sync_all());
        let mut control = rig.control();
        while control.stats().unwrap().faults[0].struck == 0 {
            std::thread::yield_now();
        }
        rig.lose();
        assert_eq!(stalled.join().unwrap().unwrap_err().raw_os_error(), Some(5));
    });
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"");
}

#[test]
fn a_flipped_bit_is_seen_at_once_and_after_a_loss() {
    let rig = rig_or_skip!();
    fs::create_dir(rig.path("d")).unwrap();
    rig.sync_dir("");
    let file = File::create(rig.path("d/f")).unwrap();
    file.write_all_at(&[0; 2000], 0).unwrap();
    file.sync_all().unwrap();
    rig.sync_dir("d");
    assert_eq!(fs::read(rig.path("d/f")).unwrap(), [0; 2000]);
    file.write_all_at(&[7; 100], 1000).unwrap();
    rig.control().flip_bit("d/f", 1050, 3).unwrap();
    rig.control().flip_bit("d/f", 5, 0).unwrap();
    let seen = fs::read(rig.path("d/f")).unwrap();
    assert_eq!((seen[5], seen[1049], seen[1050]), (1, 7, 7 ^ 8));
    drop(file);
    rig.lose();
    let seen = fs::read(rig.path("d/f")).unwrap();
    assert_eq!((seen[5], seen[1049], seen[1050]), (1, 0, 8));
    assert_eq!(rig.control().stats().unwrap().flipped_bits, 2);
    let beyond = rig.control().flip_bit("d/f", 2000, 0).unwrap_err();
    assert!(matches!(beyond, ControlError::Refused(_)), "{beyond}");
}

#[test]
fn a_full_disk_takes_what_lies_within_a_file_and_says_that_it_is_full() {
    let rig = rig_or_skip!();
    let file = File::create(rig.path("log")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8192).unwrap();
    let free = || rustix::fs::statvfs(rig.root()).unwrap().f_bavail;
    assert!(free() > 0);
    let quota = set(&rig, "*", FaultKind::NoSpace, None);
    assert!(free() > 0);
    file.write_all_at(&[7; 4096], 4096).unwrap();
    file.sync_all().unwrap();
    assert_eq!(
        file.write_at(b"x", 8192).unwrap_err().raw_os_error(),
        Some(28)
    );
    rig.control().remove_fault(quota).unwrap();
    let full = set(&rig, "*", FaultKind::DiskFull, None);
    assert_eq!(free(), 0);
    file.write_all_at(&[8; 4096], 0).unwrap();
    assert!(File::create(rig.path("more")).is_err());
    assert_eq!(rig.control().remove_fault(full).unwrap().struck, 1);
    assert!(free() > 0);
    file.write_all_at(b"x", 8192).unwrap();
}

#[test]
fn rot_strikes_what_counts_of_a_file_that_matches() {
    let rig = rig_or_skip!();
    fs::create_dir_all(rig.path("wal")).unwrap();
    fs::write(rig.path("wal/empty"), [0; 4096]).unwrap();
    fs::write(rig.path("other"), [1; 4096]).unwrap();
    let mut content = vec![9; 3000];
    content.resize(100_000, 0); // as if preallocated
    fs::write(rig.path("wal/1"), &content).unwrap();
    for (seed, place, within) in [
        (1, Place::Head, 0..512),
        (2, Place::Middle, 1000..2000),
        (3, Place::Tail, 2488..3000),
        (4, Place::Anywhere, 0..3000),
    ] {
        let flipped = rig.control().rot("wal/*", place, seed).unwrap();
        assert_eq!(flipped.path, "wal/1");
        assert!(within.contains(&flipped.offset), "{place:?} {flipped:?}");
        let seen = fs::read(rig.path("wal/1")).unwrap();
        let at = usize::try_from(flipped.offset).unwrap();
        assert_eq!(seen[at], 9 ^ (1 << flipped.bit));
        let again = (&*flipped.path, flipped.offset, flipped.bit);
        rig.control().flip_bit(again.0, again.1, again.2).unwrap();
        assert_eq!(fs::read(rig.path("wal/1")).unwrap(), content);
    }
    assert_eq!(fs::read(rig.path("other")).unwrap(), [1; 4096]);
    let nothing = rig.control().rot("wal/e*", Place::Tail, 1).unwrap_err();
    assert!(matches!(nothing, ControlError::Refused(_)), "{nothing}");
}

#[test]
fn a_loss_amid_a_slow_sync_tears_what_it_was_for() {
    let rig = rig_or_skip!();
    let file = File::create(rig.path("log")).unwrap();
    file.write_all_at(&[1; 64 * 512], 0).unwrap();
    file.sync_all().unwrap();
    rig.sync_dir("");
    set(
        &rig,
        "log",
        FaultKind::SlowSync { millis: 3_600_000 },
        Some(1),
    );
    file.write_all_at(&[2; 64 * 512], 0).unwrap();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| file.sync_all());
        while rig.control().stats().unwrap().faults[0].struck == 0 {
            std::thread::yield_now();
        }
        let report = rig.control().power_loss(Loss::Torn { seed: 5 }).unwrap();
        assert_eq!(stalled.join().unwrap().unwrap_err().raw_os_error(), Some(5));
        assert!(report.survived_bytes > 0 && report.discarded_bytes > 0);
    });
    let seen = fs::read(rig.path("log")).unwrap();
    let sectors: Vec<u8> = seen.chunks(512).map(|sector| sector[0]).collect();
    assert!(sectors.contains(&1) && sectors.contains(&2));
    // A sector is old or new, never a mixture.
    assert!(
        seen.chunks(512)
            .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
    );
}
