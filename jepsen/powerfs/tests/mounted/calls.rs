//! Every call that a broker makes works.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use highwater_env::{Disk, DiskFile, OpenMode, OsDisk, read_if_exists, replace_durably};

use super::rig::{rig_or_skip, tree};

#[test]
fn the_disk_of_the_broker() {
    let rig = rig_or_skip!();
    let disk = OsDisk;
    disk.create_dir_all(&rig.path("data/wal")).unwrap();
    let file = disk
        .open(&rig.path("data/wal/1"), OpenMode::CreateNew)
        .unwrap();
    assert!(
        disk.open(&rig.path("data/wal/1"), OpenMode::CreateNew)
            .is_err()
    );
    file.allocate(4 << 20).unwrap();
    assert_eq!(DiskFile::len(&file).unwrap(), 4 << 20);
    // More slices than one call takes, and more bytes than one request of the kernel holds.
    let parts: Vec<Vec<u8>> = (0..3000_u32)
        .map(|i| vec![i.to_le_bytes()[0]; 1000])
        .collect();
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    DiskFile::write_vectored_at(&file, &slices, 77).unwrap();
    DiskFile::sync_data(&file).unwrap();
    let mut read = vec![0; 3_000_000];
    DiskFile::read_exact_at(&file, &mut read, 77).unwrap();
    assert!(read == parts.concat());
    let name = rig.path("data/manifest");
    replace_durably(&disk, &name, b"first").unwrap();
    replace_durably(&disk, &name, b"second, longer").unwrap();
    assert_eq!(
        read_if_exists(&disk, &name).unwrap().unwrap(),
        b"second, longer"
    );
    assert!(disk.free_bytes(&name).unwrap() > 0);
    let whole = disk.sync_file_system(rig.root()).unwrap_err();
    assert_eq!(whole.kind(), std::io::ErrorKind::Unsupported);
    drop(file);
    rig.lose();
    assert_eq!(
        tree(rig.root()),
        [],
        "the directory itself was never synced"
    );
}

#[test]
fn mapped_files_show_their_content() {
    let rig = rig_or_skip!();
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(rig.path("index"), &content).unwrap();
    // A program that maps what it is given: the copy of a program runs only if its pages are right.
    fs::copy("/bin/cat", rig.path("cat")).unwrap();
    let output = std::process::Command::new(rig.path("cat"))
        .arg(rig.path("index"))
        .output()
        .unwrap();
    assert!(output.stdout == content);
}

#[test]
fn locks_exclude_and_end_with_their_holder() {
    let rig = rig_or_skip!();
    let first = File::create(rig.path("lock")).unwrap();
    let second = File::options().write(true).open(rig.path("lock")).unwrap();
    first.try_lock().unwrap();
    assert!(matches!(
        second.try_lock(),
        Err(fs::TryLockError::WouldBlock)
    ));
    drop(first);
    second.try_lock().unwrap();
}

#[test]
fn many_entries_are_listed_once_each() {
    let rig = rig_or_skip!();
    fs::create_dir(rig.path("d")).unwrap();
    for i in 0..1500 {
        File::create(rig.path(&format!("d/a rather long name for a file {i:05}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(rig.path("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1500);
    fs::remove_dir_all(rig.path("d")).unwrap();
    assert_eq!(tree(rig.root()), []);
}

#[test]
fn errors_are_those_of_a_local_file_system() {
    let rig = rig_or_skip!();
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), b"x").unwrap();
    fs::write(rig.path("g"), b"y").unwrap();
    let code = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error();
    assert_eq!(code(fs::remove_dir(rig.path("d"))), Some(39), "not empty");
    assert_eq!(
        code(fs::remove_file(rig.path("d"))),
        Some(21),
        "a directory"
    );
    assert_eq!(
        code(fs::remove_dir(rig.path("g"))),
        Some(20),
        "no directory"
    );
    assert_eq!(code(fs::remove_file(rig.path("none"))), Some(2));
    assert_eq!(code(fs::create_dir(rig.path("d"))), Some(17));
    assert_eq!(code(fs::rename(rig.path("d"), rig.path("g"))), Some(20));
    assert_eq!(code(fs::rename(rig.path("g"), rig.path("d"))), Some(21));
    let long = "n".repeat(256);
    assert_eq!(code(fs::write(rig.path(&long), b"")), Some(36));
}

#[test]
fn attributes_appending_and_direct_input_and_output() {
    let rig = rig_or_skip!();
    let path = rig.path("f");
    fs::write(&path, vec![5; 8192]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.len(), metadata.mode() & 0o777, metadata.nlink()),
        (8192, 0o640, 1)
    );
    assert!(metadata.modified().unwrap().elapsed().unwrap().as_secs() < 3600);
    let mut appending = OpenOptions::new()
        .append(true)
        .read(true)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut appending, b"end").unwrap();
    appending.seek(SeekFrom::Start(8190)).unwrap();
    let mut tail = Vec::new();
    appending.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, [5, 5, b'e', b'n', b'd']);
    const O_DIRECT: i32 = 0o40_000;
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .unwrap();
    let mut buffer = vec![0; 4096];
    FileExt::read_exact_at(&direct, &mut buffer, 4096).unwrap();
    assert_eq!(buffer, [5; 4096]);
    std::os::unix::fs::symlink("f", rig.path("s")).unwrap();
    assert_eq!(fs::read(rig.path("s")).unwrap().len(), 8195);
}
