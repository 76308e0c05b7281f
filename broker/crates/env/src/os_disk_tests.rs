//! The operating system's files behave as the trait says.

use std::io::{self, IoSlice};

use crate::{Disk, DiskFile, OpenMode, OsDisk, read_if_exists, replace_durably};

#[test]
fn vectored_writes_longer_than_one_call_takes_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsDisk
        .open(&dir.path().join("a"), OpenMode::CreateNew)
        .unwrap();
    let parts: Vec<_> = (0..3000_u32).map(u32::to_be_bytes).collect();
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    DiskFile::write_vectored_at(&file, &slices, 7).unwrap();
    DiskFile::sync_data(&file).unwrap();
    let mut content = vec![0; 12_000];
    file.read_exact_at(&mut content, 7).unwrap();
    assert_eq!(content, parts.concat());
}

#[test]
fn allocation_sets_a_length_that_reads_as_zeroes_and_never_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsDisk
        .open(&dir.path().join("a"), OpenMode::CreateNew)
        .unwrap();
    DiskFile::write_at(&file, b"abc", 0).unwrap();
    DiskFile::allocate(&file, 8192).unwrap();
    assert_eq!(DiskFile::len(&file).unwrap(), 8192);
    DiskFile::allocate(&file, 100).unwrap();
    assert_eq!(DiskFile::len(&file).unwrap(), 8192);
    let mut buf = [1; 8];
    assert_eq!(DiskFile::read_at(&file, &mut buf, 0).unwrap(), 8);
    assert_eq!(&buf, b"abc\0\0\0\0\0");
    assert_eq!(DiskFile::read_at(&file, &mut buf, 8190).unwrap(), 2);
}

#[test]
fn names_are_created_listed_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    OsDisk.open(&a, OpenMode::CreateNew).unwrap();
    let twice = OsDisk.open(&a, OpenMode::CreateNew).unwrap_err();
    assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
    OsDisk.rename(&a, &b).unwrap();
    OsDisk.sync_dir(dir.path()).unwrap();
    OsDisk.sync_file_system(dir.path()).unwrap();
    assert_eq!(
        OsDisk.read_dir(dir.path()).unwrap(),
        std::slice::from_ref(&b)
    );
    assert!(!OsDisk.exists(&a).unwrap());
    assert!(OsDisk.free_bytes(dir.path()).unwrap() > 0);
    OsDisk.remove_file(&b).unwrap();
    let gone = OsDisk.open(&b, OpenMode::Write).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_small_file_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conf");
    assert_eq!(read_if_exists(&OsDisk, &path).unwrap(), None);
    replace_durably(&OsDisk, &path, b"one").unwrap();
    replace_durably(&OsDisk, &path, b"").unwrap();
    assert_eq!(read_if_exists(&OsDisk, &path).unwrap().unwrap(), b"");
}

#[test]
fn a_directory_that_is_not_there_cannot_be_synced() {
    let dir = tempfile::tempdir().unwrap();
    OsDisk.sync_dir(dir.path()).unwrap();
    let error = OsDisk.sync_dir(&dir.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::SkipDirectoryFsync,
        "os_disk::tests::a_directory_that_is_not_there_cannot_be_synced",
    );
}
