//! Where a broker keeps its data: a plain directory, or a file system that can lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use highwater_powerfs::{
    Control, ControlError, Fault, FaultId, FaultStatus, Flipped, Loss, LossReport, Place, Stats,
};
use tokio::process::{Child, Command};

use super::shell;

/// How long a file system may take to be mounted.
const MOUNT: Duration = Duration::from_secs(20);

/// A file system that can lose power, served by a process of its own.
#[derive(Debug)]
pub struct PowerDisk {
    mount: PathBuf,
    socket: PathBuf,
    server: Child,
}

impl PowerDisk {
    /// Mounts on `mount` with `backing` behind it. `program` are the words that start a server;
    /// see [`highwater_powerfs::serve`].
    ///
    /// # Errors
    /// When it is not mounted in time.
    pub async fn start(
        program: &[std::ffi::OsString],
        mount: &Path,
        backing: &Path,
        socket: &Path,
    ) -> anyhow::Result<Self> {
        for directory in [mount, backing] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let log = fs::File::create(backing.with_extension("log"))?;
        let (first, rest) = program.split_first().context("no file system server")?;
        let mut command = Command::new(first);
        command
            .args(rest)
            .arg("--backing")
            .arg(backing)
            .arg("--mount")
            .arg(mount)
            .arg("--control")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let server = command
            .spawn()
            .context("cannot start the file system's server")?;
        let disk = Self {
            mount: mount.to_owned(),
            socket: socket.to_owned(),
            server,
        };
        // The socket is there only once the mount is.
        disk.ask(|control| control.ping())
            .await
            .with_context(|| format!("nothing is mounted on {}", mount.display()))?;
        Ok(disk)
    }

    /// Takes back what was not synced. Whoever uses the mount must have been killed before.
    ///
    /// # Errors
    /// When the server does not answer, or something still has files open there.
    pub async fn lose_power(&self, loss: Loss) -> anyhow::Result<LossReport> {
        self.ask(move |control| control.power_loss(loss)).await
    }

    /// Sets a fault.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn add_fault(&self, fault: Fault) -> anyhow::Result<FaultId> {
        self.ask(move |control| control.add_fault(fault)).await
    }

    /// Takes all faults back, lets stalled syncs finish, and says what each fault did.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn clear_faults(&self) -> anyhow::Result<Vec<FaultStatus>> {
        self.ask(|control| control.clear_faults()).await
    }

    /// Counts.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn stats(&self) -> anyhow::Result<Stats> {
        self.ask(|control| control.stats()).await
    }

    /// Flips a bit of a file that matches a pattern.
    ///
    /// # Errors
    /// When none of them holds anything.
    pub async fn rot(&self, pattern: &str, place: Place, seed: u64) -> anyhow::Result<Flipped> {
        let pattern = pattern.to_owned();
        self.ask(move |control| control.rot(&pattern, place, seed))
            .await
    }

    /// Flips a bit, or flips it back.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub async fn flip(&self, flipped: Flipped) -> anyhow::Result<()> {
        self.ask(move |control| control.flip_bit(&flipped.path, flipped.offset, flipped.bit))
            .await
    }

    /// Unmounts and waits for the server's end.
    ///
    /// # Errors
    /// When it stays mounted.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        let asked = self.ask(|control| control.shutdown()).await;
        let ended = tokio::time::timeout(MOUNT, self.server.wait()).await;
        if !matches!(ended, Ok(Ok(_))) {
            unmount(&self.mount).await?;
            self.server.kill().await?;
            bail!(
                "the server of {} did not end: {asked:?}",
                self.mount.display()
            );
        }
        unmount(&self.mount).await
    }

    /// The client of the control socket blocks, so it gets a thread that may.
    async fn ask<T, F>(&self, request: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Control) -> Result<T, ControlError> + Send + 'static,
    {
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<T> {
            let mut control = Control::connect_within(&socket, MOUNT)?;
            Ok(request(&mut control)?)
        });
        asked.await.context("the request was given up")?
    }
}

/// Takes a mount away, if it is one; whoever still has files open there keeps them until it ends.
/// Safe to repeat.
///
/// # Errors
/// When it stays mounted.
pub async fn unmount(mount: &Path) -> anyhow::Result<()> {
    if !is_mounted(mount) {
        return Ok(());
    }
    shell::run("umount", &[Path::new("--lazy"), mount])
        .await
        .map(drop)
}

fn is_mounted(mount: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let wanted = mount.to_string_lossy();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        // Blanks and backslashes are written as octal numbers; this harness makes no such names.
        .any(|point| point == wanted)
}
