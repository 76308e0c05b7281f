//! The journal's file: the one place of this crate that writes to the disk.
//!
//! This crate is a harness and not part of the broker, so it calls the file system directly (by
//! tokio's file calls) rather than through the broker's replaceable disk.

use std::io;
use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::Entry;

/// An open journal, appended to by one owner.
#[derive(Debug)]
pub struct JournalFile {
    file: File,
}

impl JournalFile {
    /// Starts a new journal. An old file of that name is an error: it may be the only witness of
    /// an earlier run.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .await?;
        file.sync_all().await?;
        if let Some(directory) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            // The name is durable only once its directory is.
            File::open(directory).await?.sync_all().await?;
        }
        Ok(Self { file })
    }

    /// Appends entries and returns when they are on the disk. After an error the journal must not
    /// be used any more: what the disk holds is then unknown. Not cancellation-safe.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let lines: String = entries.iter().map(Entry::to_line).collect();
        self.file.write_all(lines.as_bytes()).await?;
        self.file.flush().await?;
        self.file.sync_data().await
    }
}
