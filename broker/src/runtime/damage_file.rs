//! Notes of damage on the disk, so that a restart does not make a bad range look whole. The format is
//! in `FORMAT.md` beside this file.
//!
//! | if the process dies | then |
//! |---|---|
//! | before a note is written | the range counts as whole again until a reader or the scrub finds it, as before it was found |
//! | after that | the note is there at the next start, and the replica does not vote from its first moment on |
//! | when the range is whole, before its note is gone | the next start reads the range, finds it whole, and drops the note |

use std::io;
use std::path::{Path, PathBuf};

use highwater_env::{Disk, read_if_exists, replace_durably, settle};
use highwater_proto::{Offset, PartitionId, ShardId, TopicId, TopicPartition};
use serde::{Deserialize, Serialize};

use super::damage::Place;

/// The newest format that this program reads and writes.
const FORMAT_VERSION: u32 = 1;
const FILE: &str = "damage.json";

/// A range that was found bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Of which shard.
    pub shard: ShardId,
    /// Which segment.
    pub place: Place,
    /// What is wrong with it, in words.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    format_version: u32,
    ranges: Vec<Range>,
}

#[derive(Serialize, Deserialize)]
struct Range {
    shard: u32,
    topic_id: u64,
    partition: u32,
    base_offset: u64,
    what: String,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// Why the notes cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DamageFileError {
    /// The file is not what was written.
    #[error(
        "{path}: damaged ({reason}); nothing was changed. Remove the file: what is bad is then found \
         again by readers and by the scrub"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later release wrote it.
    #[error("{path}: written by a newer highwater (format {found}); run that release again")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file system refused. The process must stop when a failed sync is in it.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Reads the notes of a data directory; none when there never were any.
///
/// # Errors
/// [`DamageFileError`].
pub fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Noted>, DamageFileError> {
    let path = dir.join(FILE);
    let io = |source| DamageFileError::Io {
        path: path.clone(),
        source,
    };
    // What is believed from here on must not be undone by a loss of power.
    settle(disk, &path).map_err(io)?;
    let Some(content) = read_if_exists(disk, &path).map_err(io)? else {
        return Ok(Vec::new());
    };
    let damaged = |error: serde_json::Error| DamageFileError::Damaged {
        path: path.clone(),
        reason: error.to_string(),
    };
    let version: VersionOnly = serde_json::from_slice(&content).map_err(damaged)?;
    if version.format_version > FORMAT_VERSION {
        let found = version.format_version;
        return Err(DamageFileError::NewerFormat { path, found });
    }
    let content: Content = serde_json::from_slice(&content).map_err(damaged)?;
    let noted = |range: Range| Noted {
        shard: ShardId(range.shard),
        place: (
            TopicPartition::new(TopicId(range.topic_id), PartitionId(range.partition)),
            Offset(range.base_offset),
        ),
        what: range.what,
    };
    Ok(content.ranges.into_iter().map(noted).collect())
}

/// Makes these, and no others, the notes of a data directory, durably.
///
/// # Errors
/// [`DamageFileError::Io`].
pub fn store<D: Disk>(disk: &D, dir: &Path, notes: &[Noted]) -> Result<(), DamageFileError> {
    let path = dir.join(FILE);
    let range = |noted: &Noted| Range {
        shard: noted.shard.0,
        topic_id: noted.place.0.topic.0,
        partition: noted.place.0.partition.0,
        base_offset: noted.place.1.0,
        what: noted.what.clone(),
    };
    let content = Content {
        format_version: FORMAT_VERSION,
        ranges: notes.iter().map(range).collect(),
    };
    let written = serde_json::to_vec_pretty(&content)
        .map_err(io::Error::from)
        .and_then(|bytes| replace_durably(disk, &path, &bytes));
    written.map_err(|source| DamageFileError::Io { path, source })
}

#[cfg(test)]
#[path = "damage_file_tests.rs"]
mod tests;
