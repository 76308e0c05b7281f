//! A file that somebody still reads is not taken for reuse.

use std::path::Path;
use std::sync::Arc;

use highwater_env::{Disk, SimDisk};

use super::{Pool, Step};

fn pool_with(files: usize) -> Pool<SimDisk> {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/wal")).unwrap();
    let mut pool = Pool::new(disk, Path::new("/wal"), 8192);
    while pool.len() < files {
        assert_ne!(pool.step().unwrap(), Step::Full);
    }
    pool
}

#[test]
fn a_held_file_waits() {
    let mut pool = pool_with(1);
    let file = pool.take().unwrap();
    let reader = Arc::clone(&file);
    pool.put(file, 4).unwrap();
    assert_eq!((pool.len(), pool.usable()), (1, 0));
    assert!(pool.take().is_none());
    drop(reader);
    assert!(pool.take().is_some());
}

#[test]
fn surplus_files_are_removed() {
    let mut pool = pool_with(3);
    let file = pool.take().unwrap();
    let path = file.path.clone();
    pool.put(file, 2).unwrap();
    assert_eq!(pool.len(), 2);
    assert!(!pool.disk.exists(&path).unwrap());
}
