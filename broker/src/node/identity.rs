//! Who this data directory is: cluster, broker id, incarnation, format. The file is described in
//! `FORMAT.md` beside this one.
//!
//! The incarnation is random and made with the directory; the metadata group remembers it, so that
//! a wiped directory under a known broker id is recognised and votes nowhere.

use std::path::{Path, PathBuf};

use highwater_env::{Disk, read_if_exists, replace_durably, settle};
use highwater_proto::NodeId;
use serde::{Deserialize, Serialize};

/// The newest layout of a data directory that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
const FILE: &str = "identity.json";

/// The identity of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Layout of the directory.
    pub format_version: u32,
    /// The broker's number.
    pub node_id: u32,
    /// Random, made with the directory.
    pub incarnation: String,
    /// The cluster it belongs to; absent until the cluster exists.
    pub cluster_id: Option<String>,
    /// The brokers that founded the cluster, as this broker heard it.
    #[serde(default)]
    pub founders: Vec<Founder>,
    /// This broker initialises the metadata group.
    #[serde(default)]
    pub initiator: bool,
}

/// One of the first voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Broker number.
    pub node_id: u32,
    /// Of its data directory.
    pub incarnation: String,
    /// host:port of its gRPC door.
    pub address: String,
    /// Its failure domain.
    #[serde(default)]
    pub rack: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory belongs to another broker.
    #[error(
        "{dir}: this data directory belongs to broker {found}, but node.id is {configured}; \
         set node.id = {found} or use another data directory"
    )]
    OtherBroker {
        /// The directory.
        dir: PathBuf,
        /// Its broker.
        found: u32,
        /// The configured broker.
        configured: u32,
    },
    /// Written by a newer program.
    #[error(
        "{dir}: written in format {found}, but this program knows formats up to {FORMAT_VERSION}; \
         run a newer highwater"
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Not readable as an identity.
    #[error(
        "{path}: damaged ({reason}); nothing was changed. Restore the file, or move the directory \
         away, give it up with `highwater cluster replace` and this broker's id, and start the \
         broker with an empty one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The directory holds data, but no identity.
    #[error(
        "{dir}: holds data but no {FILE}; nothing was changed. Restore the file, or use an empty \
         directory"
    )]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to a cluster, but its write-ahead log is gone.
    #[error(
        "{dir}: this broker is a member of a cluster, but its write-ahead log is not there; without \
         its votes and entries it must not take part. Bring the files back (is the disk mounted?), \
         or give the directory up with `highwater cluster replace` and this broker's id, and start \
         the broker with an empty one"
    )]
    LogMissing {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Another process uses the directory.
    #[error("{dir}: in use by another process; stop it or use another data directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Identity {
    /// Reads the identity of `dir`, or makes one for an empty directory.
    ///
    /// # Errors
    /// Says in one line what is wrong with the directory; nothing is changed then.
    pub fn load_or_create<D: Disk>(
        disk: &D,
        dir: &Path,
        node_id: NodeId,
        new_incarnation: impl FnOnce() -> String,
    ) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        let io = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        disk.create_dir_all(dir).map_err(io)?;
        let Some(content) = read_if_exists(disk, &path).map_err(io)? else {
            if disk.exists(&dir.join("wal")).map_err(io)? {
                return Err(IdentityError::Missing {
                    dir: dir.to_owned(),
                });
            }
            let identity = Self {
                format_version: FORMAT_VERSION,
                node_id: node_id.0,
                incarnation: new_incarnation(),
                cluster_id: None,
                founders: Vec::new(),
                initiator: false,
            };
            identity.store(disk, dir)?;
            return Ok(identity);
        };
        let damaged = |reason: String| IdentityError::Damaged {
            path: path.clone(),
            reason,
        };
        if !is_as_written(&content) {
            return Err(damaged("it does not match its checksum".to_owned()));
        }
        let version: VersionOnly =
            serde_json::from_slice(&content).map_err(|e| damaged(e.to_string()))?;
        if version.format_version > FORMAT_VERSION {
            let found = version.format_version;
            return Err(IdentityError::NewerFormat {
                dir: dir.to_owned(),
                found,
            });
        }
        let identity: Self =
            serde_json::from_slice(&content).map_err(|e| damaged(e.to_string()))?;
        if identity.node_id != node_id.0 {
            return Err(IdentityError::OtherBroker {
                dir: dir.to_owned(),
                found: identity.node_id,
                configured: node_id.0,
            });
        }
        // What is done under this identity must not outlive it: a process that died after the
        // rename may have left it in the page cache alone.
        settle(disk, &path).map_err(io)?;
        Ok(identity)
    }

    /// Whether the write-ahead log in `log` may be opened. A member's log exists: it is begun
    /// before there is a cluster. A new one in its place would know nothing of the votes cast and
    /// the entries acknowledged.
    ///
    /// # Errors
    /// [`IdentityError::LogMissing`], or those of the file system.
    pub fn check_log<D: Disk>(&self, disk: &D, log: &Path) -> Result<(), IdentityError> {
        let io = |source| IdentityError::Io {
            path: log.to_owned(),
            source,
        };
        if self.cluster_id.is_none() {
            return Ok(());
        }
        // Whatever else lies there, such as a file system's own directory, is no log.
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "wal");
        let there =
            disk.exists(log).map_err(io)? && disk.read_dir(log).map_err(io)?.iter().any(is_log);
        if there {
            Ok(())
        } else {
            let dir = log.to_owned();
            Err(IdentityError::LogMissing { dir })
        }
    }

    /// Makes the identity durable.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn store<D: Disk>(&self, disk: &D, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        let content = serde_json::to_string_pretty(self).map_err(|e| IdentityError::Damaged {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let content = with_checksum(&content);
        replace_durably(disk, &path, content.as_bytes())
            .map_err(|source| IdentityError::Io { path, source })
    }

    /// The founder with this broker id.
    #[must_use]
    pub fn founder(&self, node_id: u32) -> Option<&Founder> {
        self.founders
            .iter()
            .find(|founder| founder.node_id == node_id)
    }
}

/// What stands before the checksum, the last field of the file.
const CHECKSUM: &str = ",\n  \"crc32\": ";

/// The object with a checksum of all that stands before it.
fn with_checksum(object: &str) -> String {
    let fields = object.trim_end().trim_end_matches('}').trim_end();
    let checksum = crc32fast::hash(fields.as_bytes());
    format!("{fields}{CHECKSUM}{checksum}\n}}")
}

/// Whether a file is what was written. One of an older release has no checksum, and says nothing of that.
fn is_as_written(content: &[u8]) -> bool {
    let marker = CHECKSUM.as_bytes();
    let found = content.windows(marker.len()).rposition(|at| at == marker);
    let Some(at) = found else {
        return true;
    };
    let (fields, rest) = content.split_at(at);
    let digits = rest.get(marker.len()..).unwrap_or_default();
    let written = std::str::from_utf8(digits).ok();
    let written = written.map(|digits| digits.trim_end_matches(['}', '\n']));
    written.and_then(|digits| digits.parse().ok()) == Some(crc32fast::hash(fields))
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
