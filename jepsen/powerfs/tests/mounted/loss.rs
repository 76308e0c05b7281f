//! A power loss takes what was not synced, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use highwater_powerfs::Loss;

use super::rig::{Rig, rig_or_skip, tree};

/// A file with a durable name and durable content.
fn durable_file(rig: &Rig, name: &str, content: &[u8]) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(rig.path(name))
        .unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_all().unwrap();
    rig.sync_dir("");
    file
}

#[test]
fn the_report_and_the_counts_say_what_was_taken() {
    let rig = rig_or_skip!();
    let file = durable_file(&rig, "a", &[1; 4096]);
    file.write_all_at(&[2; 1000], 512).unwrap();
    file.set_len(10_000).unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    rig.settle(1);
    let before = rig.control().stats().unwrap();
    assert_eq!(
        (before.files, before.directories, before.open_handles),
        (1, 2, 1)
    );
    assert_eq!((before.dirty_files, before.dirty_bytes), (1, 1024));
    assert_eq!((before.unsynced_entries, before.losses), (1, 0));
    assert_eq!(
        (
            before.written_bytes,
            before.file_syncs,
            before.directory_syncs
        ),
        (5096, 1, 1)
    );
    drop(file);
    let report = rig.lose();
    assert!(report.was_active());
    assert_eq!(
        (
            report.number,
            report.discarded_bytes,
            report.discarded_files
        ),
        (1, 1024, 1)
    );
    assert_eq!((report.reverted_lengths, report.discarded_entries), (1, 1));
    assert_eq!((report.survived_bytes, report.survived_entries), (0, 0));
    let after = rig.control().stats().unwrap();
    assert_eq!(
        (after.dirty_files, after.dirty_bytes, after.unsynced_entries),
        (0, 0, 0)
    );
    assert_eq!((after.losses, after.last_loss), (1, Some(report)));
    assert_eq!(
        tree(rig.root()),
        [(PathBuf::from("a"), Some(vec![1; 4096]))]
    );
    assert!(!rig.lose().was_active());
}

#[test]
fn handles_from_before_are_dead_and_new_ones_work() {
    let rig = rig_or_skip!();
    let file = durable_file(&rig, "a", b"durable");
    file.write_all_at(b"UNSYNCED", 0).unwrap();
    rig.settle(1);
    let report = rig.lose();
    assert_eq!(report.open_handles, 1);
    assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    drop(file);
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"durable");
    let file = OpenOptions::new().write(true).open(rig.path("a")).unwrap();
    file.write_all_at(b"again", 0).unwrap();
    file.sync_data().unwrap();
    drop(file);
    rig.lose();
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"againle");
}

#[test]
fn truncation_holes_and_zeroed_ranges_go_back() {
    use rustix::fs::{FallocateFlags, fallocate};
    let rig = rig_or_skip!();
    let content: Vec<u8> = (0..20_000_u32).map(|i| i.to_le_bytes()[0] | 1).collect();
    for (name, flags) in [
        (
            "hole",
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        ),
        ("zero", FallocateFlags::ZERO_RANGE),
    ] {
        let file = durable_file(&rig, name, &content);
        fallocate(&file, flags, 3000, 9000).unwrap();
        let mut seen = content.clone();
        seen[3000..12_000].fill(0);
        assert_eq!(fs::read(rig.path(name)).unwrap(), seen);
    }
    let cut = durable_file(&rig, "cut", &content);
    cut.set_len(100).unwrap();
    cut.set_len(15_000).unwrap();
    rig.lose();
    for name in ["hole", "zero", "cut"] {
        assert!(fs::read(rig.path(name)).unwrap() == content, "{name}");
    }
}

#[test]
fn synchronous_writes_are_durable_when_they_return() {
    const O_DSYNC: i32 = 0o10_000;
    const O_SYNC: i32 = 0o4_010_000;
    let rig = rig_or_skip!();
    for (name, flag) in [("data", O_DSYNC), ("all", O_SYNC)] {
        durable_file(&rig, name, b"");
        let path = rig.path(name);
        let mut file = OpenOptions::new()
            .append(true)
            .custom_flags(flag)
            .open(path)
            .unwrap();
        file.write_all(b"one").unwrap();
        file.write_all(b"two").unwrap();
    }
    durable_file(&rig, "none", b"")
        .write_all_at(b"three", 0)
        .unwrap();
    rig.lose();
    assert_eq!(fs::read(rig.path("data")).unwrap(), b"onetwo");
    assert_eq!(fs::read(rig.path("all")).unwrap(), b"onetwo");
    assert_eq!(fs::read(rig.path("none")).unwrap(), b"");
}

#[test]
fn syncing_the_file_system_or_a_range_makes_nothing_durable() {
    let rig = rig_or_skip!();
    let file = durable_file(&rig, "a", b"old");
    file.write_all_at(b"new", 0).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    assert_eq!(rig.control().stats().unwrap().dirty_files, 1);
    rig.lose();
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"old");
}

#[test]
fn a_file_synced_under_an_undurable_name_is_lost_with_it() {
    let rig = rig_or_skip!();
    File::create(rig.path("a")).unwrap().sync_all().unwrap();
    durable_file(&rig, "b", b"b");
    File::create(rig.path("c")).unwrap().sync_all().unwrap();
    rig.lose();
    let names: Vec<_> = tree(rig.root()).into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [PathBuf::from("a"), PathBuf::from("b")]);
}

#[test]
fn links_share_what_is_durable_and_removed_open_files_can_be_used() {
    let rig = rig_or_skip!();
    let file = durable_file(&rig, "a", b"first");
    fs::hard_link(rig.path("a"), rig.path("b")).unwrap();
    rig.sync_dir("");
    fs::remove_file(rig.path("a")).unwrap();
    fs::remove_file(rig.path("b")).unwrap();
    file.write_all_at(b"FIRST and more", 0).unwrap();
    file.sync_all().unwrap();
    let mut read = [0; 5];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"FIRST");
    drop(file);
    rig.lose();
    fs::write(rig.path("a"), b"through a").unwrap();
    assert_eq!(fs::read(rig.path("b")).unwrap(), b"through a");
    rig.lose();
    assert_eq!(fs::read(rig.path("b")).unwrap(), b"FIRST and more");
}

#[test]
fn directories_move_with_what_is_in_them() {
    let rig = rig_or_skip!();
    fs::create_dir_all(rig.path("from/inner")).unwrap();
    fs::create_dir(rig.path("to")).unwrap();
    fs::write(rig.path("from/inner/f"), b"x").unwrap();
    File::open(rig.path("from/inner/f"))
        .unwrap()
        .sync_all()
        .unwrap();
    for dir in ["from/inner", "from", ""] {
        rig.sync_dir(dir);
    }
    fs::rename(rig.path("from/inner"), rig.path("to/inner")).unwrap();
    rig.lose();
    assert_eq!(fs::read(rig.path("from/inner/f")).unwrap(), b"x");
    fs::rename(rig.path("from/inner"), rig.path("to/inner")).unwrap();
    rig.sync_dir("to");
    rig.lose();
    assert_eq!(fs::read(rig.path("to/inner/f")).unwrap(), b"x");
    assert!(!rig.path("from/inner").exists());
}

#[test]
fn a_torn_loss_leaves_sectors_old_or_new_and_follows_the_seed() {
    let outcome = |seed| {
        let rig = Rig::new();
        let file = durable_file(&rig, "a", &[1; 64 * 512]);
        file.write_all_at(&[2; 64 * 512], 0).unwrap();
        drop(file);
        let report = rig.control().power_loss(Loss::Torn { seed }).unwrap();
        assert_eq!(report.discarded_bytes + report.survived_bytes, 64 * 512);
        assert!(report.discarded_bytes > 0 && report.survived_bytes > 0);
        fs::read(rig.path("a")).unwrap()
    };
    let rig = rig_or_skip!();
    drop(rig);
    let torn = outcome(5);
    let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
    assert!(torn.chunks(512).all(whole));
    assert!(torn.contains(&1) && torn.contains(&2));
    assert_eq!(torn, outcome(5));
    assert_ne!(torn, outcome(6));
}
