//! The journal's owner: one task that appends what others tell it, many entries per fsync.

use std::path::Path;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Entry;
use super::file::JournalFile;

/// Entries that may wait for the disk; beyond it those who tell wait.
const WAITING: usize = 8_192;

struct Told {
    entry: Entry,
    durable: Option<oneshot::Sender<()>>,
}

/// Tells the journal. Clones tell the same one.
#[derive(Debug, Clone)]
pub(crate) struct JournalHandle {
    told: mpsc::Sender<Told>,
}

/// Resolves when an entry is on the disk.
pub(crate) struct Durable(oneshot::Receiver<()>);

impl Durable {
    pub(crate) async fn wait(self) -> anyhow::Result<()> {
        self.0
            .await
            .context("the journal failed before an entry was on the disk")
    }
}

impl JournalHandle {
    /// Opens a new journal. The task ends, with everything on the disk, when the last handle is
    /// dropped; or at the first error, and then every later call fails.
    pub(crate) async fn open(
        path: &Path,
    ) -> anyhow::Result<(Self, JoinHandle<anyhow::Result<()>>)> {
        let file = JournalFile::create(path)
            .await
            .with_context(|| format!("cannot create the journal {}", path.display()))?;
        let (told, tells) = mpsc::channel(WAITING);
        Ok((Self { told }, tokio::spawn(keep(file, tells))))
    }

    /// Hands an entry over. Cancellation-safe.
    pub(crate) async fn tell(&self, entry: Entry) -> anyhow::Result<()> {
        let told = self
            .told
            .send(Told {
                entry,
                durable: None,
            })
            .await;
        told.ok().context("the journal has failed")
    }

    /// Hands an entry over; the answer resolves when it is on the disk.
    pub(crate) async fn tell_durably(&self, entry: Entry) -> anyhow::Result<Durable> {
        let (durable, on_disk) = oneshot::channel();
        let told = self
            .told
            .send(Told {
                entry,
                durable: Some(durable),
            })
            .await;
        told.ok().context("the journal has failed")?;
        Ok(Durable(on_disk))
    }
}

async fn keep(mut file: JournalFile, mut tells: mpsc::Receiver<Told>) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    while tells.recv_many(&mut batch, WAITING).await > 0 {
        let entries: Vec<Entry> = batch.iter().map(|told| told.entry).collect();
        file.append(&entries)
            .await
            .context("cannot write the journal")?;
        for durable in batch.drain(..).filter_map(|told| told.durable) {
            // Whoever asked may have given up.
            let _ = durable.send(());
        }
    }
    Ok(())
}
