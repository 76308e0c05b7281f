//! A slot of this machine: a number that names a run's namespaces and addresses, held by a lock
//! that the kernel releases when the run ends, however that happens.
//!
//! Names follow from the number alone, and mounts are written down before they are made. So
//! whoever takes a slot can remove all that a killed run left in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use super::{network, storage};

/// Where slots are written down; it does not outlive a restart of the machine, nor do they.
const HOME: &str = "/run/highwater-jepsen";

/// Runs that can go on side by side; each takes one network of 254 addresses.
const SLOTS: u8 = 64;

/// A slot, held until it is dropped.
#[derive(Debug)]
pub struct Slot {
    number: u8,
    file: File,
}

impl Slot {
    /// Cleans what runs that are gone left behind, and takes the first free slot.
    ///
    /// # Errors
    /// When nothing can be written below `/run`, or every slot is taken.
    pub async fn take() -> anyhow::Result<Self> {
        fs::create_dir_all(HOME).with_context(|| format!("cannot create {HOME}"))?;
        let mut taken = None;
        for number in 0..SLOTS {
            let path = path_of(number);
            if taken.is_some() && !path.exists() {
                continue;
            }
            let Some(slot) = Self::lock(number, &path)? else {
                continue;
            };
            slot.clean(&path).await?;
            if taken.is_none() {
                taken = Some(slot);
            }
        }
        taken.context("64 runs are going on already")
    }

    fn lock(number: u8, path: &Path) -> anyhow::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { number, file })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Where a broker's disk is controlled; short, because the names of sockets must be.
    #[must_use]
    pub fn socket(&self, node: u32) -> PathBuf {
        Path::new(HOME).join(format!("slot-{}-disk-{node}", self.number))
    }

    /// Writes a mount point down. Call it before the mount is made.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn note_mount(&mut self, mount: &Path) -> anyhow::Result<()> {
        writeln!(self.file, "{}", mount.display()).context("cannot note a mount")
    }

    /// Removes everything that carries this slot's name: processes in its namespaces, mounts, the
    /// namespaces. Safe to repeat.
    ///
    /// # Errors
    /// When something of it stays.
    pub async fn clear(&self) -> anyhow::Result<()> {
        self.clean(&path_of(self.number)).await
    }

    async fn clean(&self, path: &Path) -> anyhow::Result<()> {
        network::remove(self.number).await?;
        let noted = fs::read_to_string(path).unwrap_or_default();
        for mount in noted.lines().filter(|line| !line.trim().is_empty()) {
            storage::unmount(Path::new(mount)).await?;
        }
        self.file.set_len(0).context("cannot empty a slot's file")
    }
}

fn path_of(number: u8) -> PathBuf {
    Path::new(HOME).join(format!("slot-{number}"))
}
