//! Files of every format version stay readable, and the present version is written as FORMAT.md
//! says, byte for byte. To add the files of a new version, run once with
//! `HIGHWATER_WRITE_GOLDEN=1`.

use std::fs;
use std::path::{Path, PathBuf};

use highwater_env::{Disk, DiskFile, OpenMode, SimDisk};
use highwater_wal::{GroupId, LogIndex, Op, WalConfig};

use crate::model::Model;
use crate::support::{DIR, Fatal, append, config, open_with, purge, run, vote};

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn small() -> WalConfig {
    WalConfig {
        file_bytes: 8 << 10,
        ..config(&Fatal::default())
    }
}

/// A log with a frame of every kind, entries written again among them.
fn written() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let model = run(async {
        let (wal, _) = open_with(&disk, small()).unwrap();
        let write = async |group, ops| wal.write(GroupId(group), ops).await.unwrap();
        write(0, vec![vote("term 3 for broker 2")]).await;
        write(
            1,
            vec![append(0, "never purged"), append(1, ""), append(2, "cut")],
        )
        .await;
        write(1, vec![Op::Truncate { from: LogIndex(2) }]).await;
        write(3, vec![append(7, "forgotten"), Op::Forget]).await;
        for index in 0..24 {
            write(2, vec![append(index, vec![b'a' + index as u8; 900])]).await;
            if index % 4 == 3 {
                write(2, vec![purge(index - 1)]).await;
            }
        }
        assert!(wal.stats().relocated_bytes > 0 && wal.stats().recycled_files > 0);
        let model = Model::of(&wal);
        wal.close().await;
        model
    });
    (disk, model)
}

#[test]
fn the_present_version_is_written_byte_for_byte() {
    let (disk, _) = written();
    let dir = golden(1);
    let paths = disk.read_dir(Path::new(DIR)).unwrap();
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&dir).unwrap();
        for path in &paths {
            let content = disk.content(path).unwrap();
            fs::write(dir.join(path.file_name().unwrap()), content).unwrap();
        }
    }
    let mut golden: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    golden.sort();
    assert_eq!(
        golden,
        paths
            .iter()
            .map(|p| p.file_name().unwrap())
            .collect::<Vec<_>>()
    );
    for path in paths {
        let expected = fs::read(dir.join(path.file_name().unwrap())).unwrap();
        assert!(
            disk.content(&path).unwrap() == expected,
            "{} differs",
            path.display()
        );
    }
}

#[test]
fn every_version_is_read() {
    let (_, model) = written();
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for file in fs::read_dir(golden(1)).unwrap() {
        let file = file.unwrap();
        let copy = disk
            .open(&Path::new(DIR).join(file.file_name()), OpenMode::CreateNew)
            .unwrap();
        copy.write_at(&fs::read(file.path()).unwrap(), 0).unwrap();
    }
    run(async {
        let (wal, _) = open_with(&disk, small()).unwrap();
        assert_eq!(Model::of(&wal), model);
    });
}
