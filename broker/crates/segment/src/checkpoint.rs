//! A shard's checkpoint as one file: what Raft needs, the shard's state, and the manifests of its
//! partitions. See FORMAT.md.

#![deny(clippy::indexing_slicing)]

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use highwater_env::{Disk, read_if_exists, replace_durably};
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use prost::Message;

use crate::manifest::{ManifestError, PartitionManifest, PartitionMessage};

const MAGIC: &[u8; 8] = b"HWCHKPT\n";
/// The newest version. All versions up to it can be read.
const VERSION: u32 = 3;
/// What is written when no partition came by a move: releases before moves read it.
const WITHOUT_MOVES: u32 = 2;
/// What is written when no log was compacted either: releases before compaction read it.
const WITHOUT_COMPACTION: u32 = 1;
const HEADER_LEN: usize = 24;

/// A shard, frozen at one place of its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Opaque: the place in the log, and the voters.
    pub raft_meta: Bytes,
    /// Opaque: the shard's state.
    pub state: Bytes,
    /// The shard's partitions, by id.
    pub partitions: Vec<(TopicPartition, PartitionManifest)>,
}

/// Bytes that are not a usable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Something else.
    #[error("it is not a checkpoint")]
    NotACheckpoint,
    /// Written by a newer release.
    #[error("it has format version {found}; this release reads up to {supported}")]
    NewerVersion {
        /// The version found.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// Cut short or changed.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Intact, but it says what no log can be.
    #[error("partition {partition}: {source}")]
    Manifest {
        /// Whose manifest.
        partition: TopicPartition,
        /// What is wrong.
        source: ManifestError,
    },
}

/// A checkpoint file could not be read. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum ReadCheckpointError {
    /// The file system refused.
    #[error("reading checkpoint {path} failed: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The content cannot be used.
    #[error("checkpoint {path} cannot be used: {source}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
}

#[derive(Clone, PartialEq, Message)]
struct CheckpointMessage {
    #[prost(bytes = "bytes", tag = "1")]
    raft_meta: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    state: Bytes,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<NamedPartition>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPartition {
    #[prost(uint64, tag = "1")]
    topic: u64,
    #[prost(uint32, tag = "2")]
    partition: u32,
    #[prost(message, required, tag = "3")]
    manifest: PartitionMessage,
}

impl Checkpoint {
    /// The file's content.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let named = |(partition, manifest): &(TopicPartition, PartitionManifest)| NamedPartition {
            topic: partition.topic.0,
            partition: partition.partition.0,
            manifest: manifest.into(),
        };
        let message = CheckpointMessage {
            raft_meta: self.raft_meta.clone(),
            state: self.state.clone(),
            partitions: self.partitions.iter().map(named).collect(),
        };
        let body = message.encode_to_vec();
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.put_slice(MAGIC);
        out.put_u32(self.version_to_write());
        out.put_u64(body.len() as u64);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&out);
        crc.update(&body);
        out.put_u32(crc.finalize());
        out.extend_from_slice(&body);
        out.into()
    }
    fn version_to_write(&self) -> u32 {
        let mut manifests = self.partitions.iter().map(|(_, manifest)| manifest);
        if manifests.clone().any(|manifest| manifest.arrival > 0) {
            VERSION
        } else if manifests.any(PartitionManifest::needs_compaction) {
            WITHOUT_MOVES
        } else {
            WITHOUT_COMPACTION
        }
    }
    /// Reads a file's content.
    ///
    /// # Errors
    /// What is wrong with it; damage and a newer version are told apart.
    pub fn decode(content: &Bytes) -> Result<Self, CheckpointError> {
        let body = checked_body(content)?;
        let message = CheckpointMessage::decode(body)
            .map_err(|_| CheckpointError::Damaged("its fields cannot be decoded"))?;
        let mut partitions = Vec::with_capacity(message.partitions.len());
        for named in message.partitions {
            let partition = TopicPartition::new(TopicId(named.topic), PartitionId(named.partition));
            let manifest = PartitionManifest::from(named.manifest);
            manifest
                .validate()
                .map_err(|source| CheckpointError::Manifest { partition, source })?;
            partitions.push((partition, manifest));
        }
        Ok(Self {
            raft_meta: message.raft_meta,
            state: message.state,
            partitions,
        })
    }
    /// Replaces the checkpoint at `path`, durably. The old file counts until this one does.
    ///
    /// # Errors
    /// Those of the file system. A failed sync must stop the process.
    pub fn write<D: Disk>(&self, disk: &D, path: &Path) -> io::Result<()> {
        replace_durably(disk, path, &self.encode())
    }
    /// The checkpoint at `path`, or `None` if there is no file.
    ///
    /// # Errors
    /// Why it cannot be used; the file is left alone.
    pub fn read<D: Disk>(disk: &D, path: &Path) -> Result<Option<Self>, ReadCheckpointError> {
        let content = read_if_exists(disk, path).map_err(|source| ReadCheckpointError::Io {
            path: path.to_owned(),
            source,
        })?;
        let Some(content) = content else {
            return Ok(None);
        };
        Self::decode(&content.into())
            .map(Some)
            .map_err(|source| ReadCheckpointError::Content {
                path: path.to_owned(),
                source,
            })
    }
}

fn checked_body(content: &Bytes) -> Result<Bytes, CheckpointError> {
    let cut = CheckpointError::Damaged("it is cut short");
    let Some((header, body)) = content.split_at_checked(HEADER_LEN) else {
        let is_start = content
            .iter()
            .zip(MAGIC)
            .all(|(found, magic)| found == magic);
        return Err(if is_start {
            cut
        } else {
            CheckpointError::NotACheckpoint
        });
    };
    let mut fields = header
        .strip_prefix(MAGIC.as_slice())
        .ok_or(CheckpointError::NotACheckpoint)?;
    let version = fields.get_u32();
    let len = fields.get_u64();
    let stored = fields.get_u32();
    if version > VERSION {
        // Before the checksum: a newer version may cover other bytes with it.
        return Err(CheckpointError::NewerVersion {
            found: version,
            supported: VERSION,
        });
    }
    if len != body.len() as u64 {
        return Err(cut);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(..HEADER_LEN - 4).unwrap_or_default());
    crc.update(body);
    if crc.finalize() != stored {
        return Err(CheckpointError::Damaged("its checksum does not fit"));
    }
    if version == 0 {
        return Err(CheckpointError::Damaged("it has format version 0"));
    }
    Ok(content.slice(HEADER_LEN..))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
