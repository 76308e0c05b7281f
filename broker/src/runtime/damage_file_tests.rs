//! Notes survive what kills a process or a machine, as a whole: the old ones or the new ones.

use highwater_env::{CallKind, Loss, SimDisk};

use super::*;

const DIR: &str = "/d";

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("made");
    disk.sync_dir(Path::new("/")).expect("synced");
    disk
}

fn noted(base: u64) -> Noted {
    Noted {
        shard: ShardId(4),
        place: (
            TopicPartition::new(TopicId(7), PartitionId(2)),
            Offset(base),
        ),
        what: "a batch does not fit its checksum".to_owned(),
    }
}

fn read(disk: &SimDisk) -> Vec<Noted> {
    load(disk, Path::new(DIR)).expect("read")
}

#[test]
fn what_was_noted_is_there_after_a_loss_of_power_and_what_was_dropped_is_not() {
    let disk = disk();
    assert!(read(&disk).is_empty());
    let both = [noted(0), noted(500)];
    store(&disk, Path::new(DIR), &both).expect("stored");
    let disk = disk.crash(Loss::Everything);
    assert_eq!(read(&disk), both);
    store(&disk, Path::new(DIR), &both[1..]).expect("stored");
    assert_eq!(read(&disk.crash(Loss::Everything)), both[1..]);
}

#[test]
fn a_process_that_dies_while_it_notes_leaves_the_old_notes_or_the_new() {
    for call in [
        CallKind::Open,
        CallKind::Write,
        CallKind::SyncData,
        CallKind::Rename,
        CallKind::SyncDir,
    ] {
        let disk = disk();
        let (old, new) = ([noted(0)], [noted(0), noted(500)]);
        store(&disk, Path::new(DIR), &old).expect("stored");
        disk.fail_next(call, io::ErrorKind::Other);
        store(&disk, Path::new(DIR), &new).expect_err("injected");
        let next = disk.kill();
        let believed = read(&next);
        assert!(believed == old || believed == new, "{call:?}: {believed:?}");
        // What the next process believes stays so, whatever happens to it.
        assert_eq!(read(&next.crash(Loss::Everything)), believed, "{call:?}");
    }
}

#[test]
fn version_1_is_read_and_what_is_not_understood_is_refused() {
    let disk = disk();
    let path = Path::new(DIR).join(FILE);
    let golden = include_bytes!("golden/v1.damage.json");
    replace_durably(&disk, &path, golden).expect("written");
    assert_eq!(read(&disk), [noted(500)]);
    store(&disk, Path::new(DIR), &[noted(500)]).expect("stored");
    assert_eq!(disk.content(&path).expect("there"), golden);
    replace_durably(&disk, &path, br#"{"format_version":2,"other":1}"#).expect("written");
    let newer = load(&disk, Path::new(DIR)).expect_err("refused");
    assert!(newer.to_string().contains("newer highwater"), "{newer}");
    replace_durably(&disk, &path, &golden[..40]).expect("written");
    let damaged = load(&disk, Path::new(DIR)).expect_err("refused");
    assert!(
        damaged.to_string().contains("damage.json: damaged"),
        "{damaged}"
    );
}
