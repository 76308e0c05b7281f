//! A mount and the simulated disk of the broker agree on what is seen and on what a power loss
//! leaves, whatever is done before.
//!
//! The simulated disk knows names by their paths, and forgets that a change rests on an earlier
//! one: two things are therefore not tried here but in `loss.rs` and in unit tests. A directory's
//! name is not given again; a file that goes to another directory goes with a durable name, which
//! is not given again either. And after a failed sync no file is cut before the next power loss:
//! the two differ in whether zeroes that replace zeroes are a change.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use highwater_env::{CallKind, Disk, DiskFile, Loss as SimLoss, OpenMode, OsDisk, SimDisk};
use highwater_powerfs::{Fault, FaultKind};
use proptest::prelude::*;

use super::rig::{Rig, can_mount, tree};

const DIRECTORIES: usize = 3;
const FILES: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Write {
        file: (usize, usize),
        at: u64,
        len: usize,
        fill: u8,
    },
    SetLen {
        file: (usize, usize),
        len: u64,
    },
    Allocate {
        file: (usize, usize),
        len: u64,
    },
    Sync {
        file: (usize, usize),
        fails: bool,
    },
    Truncate {
        file: (usize, usize),
    },
    Remove {
        file: (usize, usize),
    },
    Rename {
        file: (usize, usize),
        to: usize,
    },
    Move {
        file: (usize, usize),
        to: usize,
    },
    MakeDirectory,
    RemoveDirectory {
        dir: usize,
    },
    SyncDirectory {
        dir: usize,
        fails: bool,
    },
    LosePower,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let file = || (0..DIRECTORIES, 0..FILES);
    // Near the borders of sectors, of blocks and of pages.
    let at = || {
        (0u64..6, 0u64..3).prop_map(|(block, near)| (block * 2048 + near * 511).saturating_sub(1))
    };
    let len = prop_oneof![1usize..20, 500usize..600, 4000usize..9000];
    let fails = || prop::bool::weighted(0.1);
    let op = prop_oneof![
        8 => (file(), at(), len, any::<u8>()).prop_map(|(file, at, len, fill)| Op::Write { file, at, len, fill }),
        2 => (file(), at()).prop_map(|(file, len)| Op::SetLen { file, len }),
        1 => (file(), at()).prop_map(|(file, len)| Op::Allocate { file, len: len + 1 }),
        6 => (file(), fails()).prop_map(|(file, fails)| Op::Sync { file, fails }),
        1 => file().prop_map(|file| Op::Truncate { file }),
        1 => file().prop_map(|file| Op::Remove { file }),
        2 => (file(), 0..FILES).prop_map(|(file, to)| Op::Rename { file, to }),
        1 => (file(), 0..DIRECTORIES).prop_map(|(file, to)| Op::Move { file, to }),
        2 => Just(Op::MakeDirectory),
        1 => (0..DIRECTORIES).prop_map(|dir| Op::RemoveDirectory { dir }),
        4 => (0..DIRECTORIES + 1, fails()).prop_map(|(dir, fails)| Op::SyncDirectory { dir, fails }),
        1 => Just(Op::LosePower),
    ];
    prop::collection::vec(op, 1..80)
}

/// The same calls on both.
struct Both {
    rig: Rig,
    sim: SimDisk,
    /// Directories made so far, those removed too. The first is the root.
    directories: Vec<PathBuf>,
    /// Names that were moved away and are not given again.
    burnt: BTreeSet<PathBuf>,
    /// Whether a file's sync failed since the last power loss.
    sync_failed: bool,
}

impl Both {
    fn new() -> Self {
        Self {
            rig: Rig::new(),
            sim: SimDisk::new(),
            directories: vec![PathBuf::new()],
            burnt: BTreeSet::new(),
            sync_failed: false,
        }
    }
    fn dir(&self, number: usize) -> PathBuf {
        let back = number % self.directories.len();
        self.directories[self.directories.len() - 1 - back].clone()
    }
    fn file(&self, (dir, name): (usize, usize)) -> PathBuf {
        self.dir(dir).join(format!("f{name}"))
    }
    fn real(&self, path: &Path) -> PathBuf {
        // An empty path joined would end with a slash.
        if path.as_os_str().is_empty() {
            self.rig.root().to_owned()
        } else {
            self.rig.root().join(path)
        }
    }
    fn simulated(path: &Path) -> PathBuf {
        Path::new("/").join(path)
    }

    /// Does it on both; both must say the same.
    fn both<T>(
        &self,
        path: &Path,
        real: impl FnOnce(&OsDisk, &Path) -> io::Result<T>,
        sim: impl FnOnce(&SimDisk, &Path) -> io::Result<T>,
    ) -> bool {
        let real = real(&OsDisk, &self.real(path)).map(|_| ());
        let sim = sim(&self.sim, &Self::simulated(path)).map(|_| ());
        assert_eq!(real.is_ok(), sim.is_ok(), "{path:?}: {real:?}, {sim:?}");
        real.is_ok()
    }

    fn on_file(
        &self,
        file: (usize, usize),
        mode: OpenMode,
        real: impl FnOnce(&std::fs::File) -> io::Result<()>,
        sim: impl FnOnce(&highwater_env::SimFile) -> io::Result<()>,
    ) {
        let path = self.file(file);
        if mode == OpenMode::Truncate && self.burnt.contains(&path) {
            return;
        }
        self.both(
            &path,
            |disk, path| real(&disk.open(path, mode)?),
            |disk, path| sim(&disk.open(path, mode)?),
        );
    }

    /// Opens for writing, and makes the file where it does not exist.
    fn make(&self, file: (usize, usize)) {
        let path = self.file(file);
        let absent = !self.sim.exists(&Self::simulated(&path)).unwrap();
        if absent && !self.burnt.contains(&path) {
            let new = OpenMode::CreateNew;
            self.both(
                &path,
                |disk, path| disk.open(path, new).map(drop),
                |disk, path| disk.open(path, new).map(drop),
            );
        }
    }

    fn fail_next(&self, call: CallKind) {
        self.sim.fail_next(call, io::ErrorKind::Other);
        let fault = Fault {
            pattern: "*".to_owned(),
            kind: FaultKind::SyncError,
            times: Some(1),
        };
        self.rig.control().add_fault(fault).unwrap();
    }
    /// Where the call that was to fail did not come so far, it is not to fail later.
    fn fail_no_more(&self) {
        self.sim.clear_faults();
        self.rig.control().clear_faults().unwrap();
    }

    fn apply_to_content(&mut self, op: &Op) {
        match *op {
            Op::Write {
                file,
                at,
                len,
                fill,
            } => {
                self.make(file);
                let bytes: Vec<u8> = (0..len)
                    .map(|i| fill.wrapping_add((i / 100) as u8))
                    .collect();
                self.on_file(
                    file,
                    OpenMode::Write,
                    |f| f.write_at(&bytes, at),
                    |f| f.write_at(&bytes, at),
                );
            }
            Op::SetLen { .. } | Op::Truncate { .. } if self.sync_failed => {}
            Op::SetLen { file, len } => {
                self.on_file(
                    file,
                    OpenMode::Write,
                    |f| DiskFile::set_len(f, len),
                    |f| f.set_len(len),
                );
            }
            Op::Allocate { file, len } => {
                self.make(file);
                self.on_file(
                    file,
                    OpenMode::Write,
                    |f| f.allocate(len),
                    |f| f.allocate(len),
                );
            }
            Op::Sync { file, fails } => {
                if fails {
                    self.fail_next(CallKind::SyncData);
                    self.sync_failed = true;
                }
                self.on_file(file, OpenMode::Read, DiskFile::sync_data, |f| f.sync_data());
                self.fail_no_more();
            }
            Op::Truncate { file } => {
                self.on_file(file, OpenMode::Truncate, |_| Ok(()), |_| Ok(()));
            }
            _ => unreachable!("{op:?} is about names"),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Remove { file } => {
                self.both(&self.file(file), Disk::remove_file, Disk::remove_file);
            }
            Op::Rename { file, to } => self.rename(&self.file(file), &self.file((file.0, to))),
            Op::Move { file, to } => self.move_away(file, to),
            Op::MakeDirectory => {
                let parent = self.dir(0);
                let path = parent.join(format!("d{}", self.directories.len()));
                // One that was removed would be made again on the way, under the same name.
                let there = self.sim.exists(&Self::simulated(&parent)).unwrap();
                if there && self.both(&path, Disk::create_dir_all, Disk::create_dir_all) {
                    self.directories.push(path);
                }
            }
            Op::RemoveDirectory { dir } => {
                let path = self.dir(dir);
                if !path.as_os_str().is_empty() {
                    self.both(&path, Disk::remove_dir, Disk::remove_dir);
                }
            }
            Op::SyncDirectory { dir, fails } => {
                if fails {
                    self.fail_next(CallKind::SyncDir);
                }
                self.both(&self.dir(dir), Disk::sync_dir, Disk::sync_dir);
                self.fail_no_more();
            }
            Op::LosePower => self.lose_power(),
            _ => self.apply_to_content(op),
        }
    }

    fn rename(&self, from: &Path, to: &Path) {
        if from == to || self.burnt.contains(to) {
            return;
        }
        let (real, simulated) = (self.real(to), Self::simulated(to));
        self.both(
            from,
            |disk, from| disk.rename(from, &real),
            |disk, from| disk.rename(from, &simulated),
        );
    }

    fn move_away(&mut self, file: (usize, usize), to: usize) {
        let (from, to) = (self.file(file), self.file((to, file.1)));
        let known = self.sim.exists(&Self::simulated(&from)).unwrap();
        let ways = (
            from.parent() != to.parent(),
            self.sim
                .read_dir(&Self::simulated(to.parent().unwrap()))
                .is_ok(),
        );
        if known && ways == (true, true) {
            self.both(&self.dir(file.0), Disk::sync_dir, Disk::sync_dir);
            self.rename(&from, &to);
            self.burnt.insert(from);
        }
    }

    fn lose_power(&mut self) {
        self.rig.lose();
        self.sync_failed = false;
        self.sim = self.sim.crash(SimLoss::Everything);
        let present = |dir: &PathBuf| {
            dir.as_os_str().is_empty() || self.sim.exists(&Self::simulated(dir)).unwrap()
        };
        self.directories.retain(present);
    }

    fn compare(&self) {
        let mut simulated = Vec::new();
        let mut next = vec![PathBuf::from("/")];
        while let Some(dir) = next.pop() {
            for path in self.sim.read_dir(&dir).unwrap() {
                let content = self.sim.content(&path).ok();
                if content.is_none() {
                    next.push(path.clone());
                }
                simulated.push((path.strip_prefix("/").unwrap().to_owned(), content));
            }
        }
        simulated.sort();
        let real = tree(self.rig.root());
        assert!(real == simulated, "{}", difference(&real, &simulated));
    }
}

type Whole = [(PathBuf, Option<Vec<u8>>)];

/// Says where two trees differ, without printing all their bytes.
fn difference(real: &Whole, simulated: &Whole) -> String {
    let names = |tree: &Whole| -> Vec<(PathBuf, Option<usize>)> {
        tree.iter()
            .map(|(path, bytes)| (path.clone(), bytes.as_ref().map(Vec::len)))
            .collect()
    };
    if names(real) != names(simulated) {
        return format!(
            "mounted: {:?}\nsimulated: {:?}",
            names(real),
            names(simulated)
        );
    }
    let mut differences = String::new();
    for ((path, real), (_, simulated)) in real.iter().zip(simulated) {
        let (Some(real), Some(simulated)) = (real, simulated) else {
            continue;
        };
        if let Some(at) = real.iter().zip(simulated).position(|(a, b)| a != b) {
            differences += &format!(
                "{}: at {at} {} for {}\n",
                path.display(),
                real[at],
                simulated[at]
            );
        }
    }
    differences
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mount_loses_what_the_simulated_disk_loses(ops in ops()) {
        if !can_mount("a_mount_loses_what_the_simulated_disk_loses") {
            return Ok(());
        }
        let mut both = Both::new();
        for op in &ops {
            both.apply(op);
        }
        both.compare();
        both.lose_power();
        both.compare();
        // Nothing is lost twice.
        both.lose_power();
        both.compare();
    }
}
