//! Opening the write-ahead log, and what it may be told to do without.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::ShardId;
use highwater_segment::Checkpoint;
use highwater_wal::{Covered, GroupId, LogIndex, Recovery, Wal, WalConfig};

use super::start::{METADATA, make_dir, metadata_checkpoint, shards_dir};
use crate::config::Config;
use crate::runtime::checkpoint::checkpoint_path;
use crate::runtime::damage::DamageNotes;

/// This part of the log's budget, but at least so many files, may lie ready.
const KEPT_FREE_PART: u64 = 6;
const KEPT_FREE: usize = 4;

/// The log's directory.
pub(super) fn log_dir(config: &Config) -> PathBuf {
    config.node.data_dir.join("wal")
}

/// Opens the log. What had rotted in it and is done without is named.
///
/// # Errors
/// One line.
pub(super) fn open_log<E: Env>(env: &E, config: &Config) -> anyhow::Result<(Wal<E>, Recovery)> {
    let dir = make_dir(env, &log_dir(config))?;
    let wal = WalConfig {
        file_bytes: config.wal.file_bytes.0,
        budget_bytes: config.wal.budget_bytes.0,
        max_free_files: kept_free(config),
        on_fatal: Arc::new(|error| super::end(error)),
        covered: covered(env, &config.node.data_dir),
        ..WalConfig::default()
    };
    let (wal, recovery) = Wal::open(env, &dir, wal)?;
    if let Some(torn) = &recovery.torn_tail {
        tracing::info!(?torn, "cut a torn tail that was never acknowledged");
    }
    for place in &recovery.bad {
        metrics::counter!("highwater_damaged_log_entries_total").increment(1);
        tracing::error!(%place, "a part of the log had rotted: nothing of it is needed");
    }
    Ok((wal, recovery))
}

/// How many files that the log does not need stay for reuse: groups that fill up alike are checkpointed
/// one after the other, and then as many files become free at once. A new file costs as much as its
/// content: it is written through before it goes into use.
fn kept_free(config: &Config) -> usize {
    let part = config.wal.budget_bytes.0 / KEPT_FREE_PART / config.wal.file_bytes.0.max(1);
    usize::try_from(part).unwrap_or(usize::MAX).max(KEPT_FREE)
}

/// The notes of an earlier process, with what was found when the log was opened.
pub(super) fn noted(notes: DamageNotes, recovery: &Recovery) -> DamageNotes {
    if !recovery.bad.is_empty() {
        notes.renew_log();
    }
    notes
}

/// What the checkpoints on the disk hold. One that cannot be read holds nothing here: its group says
/// so when it starts.
fn covered<E: Env>(env: &E, data_dir: &Path) -> Covered {
    let (disk, data_dir) = (env.disk().clone(), data_dir.to_owned());
    Arc::new(move |group: GroupId| {
        let path = if group.0 == METADATA.0 {
            metadata_checkpoint(&data_dir)
        } else {
            checkpoint_path(&shards_dir(&data_dir), ShardId(group.0))
        };
        let checkpoint = match Checkpoint::read(&disk, &path) {
            Ok(checkpoint) => checkpoint?,
            Err(error) => {
                tracing::warn!(group = group.0, %error, "what a checkpoint covers cannot be told");
                return None;
            }
        };
        match highwater_raft::last_covered(&checkpoint.raft_meta) {
            Ok(last) => last.map(LogIndex),
            Err(error) => {
                tracing::warn!(group = group.0, %error, "what a checkpoint covers cannot be told");
                None
            }
        }
    })
}
