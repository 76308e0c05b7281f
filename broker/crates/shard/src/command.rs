//! Commands of a shard's log. Batches stay the bytes that they came in: encoding puts a header in
//! front of them, decoding cuts them out again, neither copies them.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};
use highwater_proto::internal::shard_command_header::Command as Wire;
use highwater_proto::internal::{
    ShardAppend, ShardAppendItem, ShardCommandHeader, ShardCompactLog, ShardConfigurePartition,
    ShardCreatePartition, ShardDeletePartition, ShardRaiseFeatureLevel, ShardTrimLog,
};
use highwater_proto::{
    Offset, PartitionId, Payload, PayloadReader, PayloadTooShort, TimestampMs, TopicId,
    TopicPartition,
};
use prost::Message;

use crate::move_command::MoveCommand;
use crate::{FeatureLevel, GroupCommand, PartitionConfig};

/// The framing written: a byte of version, four of the header's length (big-endian), the header,
/// the batches.
const VERSION: u8 = 1;
const FRAME_LEN: usize = 5;

/// One batch for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// Where to.
    pub tp: TopicPartition,
    /// When the leader took it.
    pub append_time: TimestampMs,
    /// One RecordBatch v2, validated before it was proposed.
    pub batch: Bytes,
}

/// An entry of a shard's log.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardCommand {
    /// Batches, decided one by one in this order. Reply: `Append`, a verdict for each.
    Append {
        /// The batches.
        batches: Vec<AppendRequest>,
    },
    /// Makes an empty partition. Repeating it changes nothing. Reply: `Done`.
    CreatePartition {
        /// Which one.
        tp: TopicPartition,
        /// How it is treated.
        config: PartitionConfig,
    },
    /// Drops a partition with all its records. Repeating it changes nothing. Reply: `Done`.
    DeletePartition {
        /// Which one.
        tp: TopicPartition,
    },
    /// Treats a partition differently from now on. Reply: `Done`.
    ConfigurePartition {
        /// Which one.
        tp: TopicPartition,
        /// How it is treated.
        config: PartitionConfig,
    },
    /// Drops the records below an offset. Reply: `Trimmed`.
    TrimLog {
        /// Of which partition.
        tp: TopicPartition,
        /// The first offset that stays.
        log_start: Offset,
        /// Only while the partition's settings have this version; from level
        /// [`FeatureLevel::TOPICS`] on.
        config_version: Option<u64>,
    },
    /// Has everything below an offset compacted; from level [`FeatureLevel::COMPACTION`] on. Reply:
    /// `Done`.
    CompactLog {
        /// Of which partition.
        tp: TopicPartition,
        /// A segment ends here.
        upto: Offset,
        /// The leader's clock.
        time: TimestampMs,
        /// Only while the partition's settings have this version.
        config_version: u64,
    },
    /// A step of a partition's move to another shard; from level [`FeatureLevel::MOVES`] on. Reply:
    /// `Done`.
    Move(Box<MoveCommand>),
    /// A command to a consumer group. Reply: `Group`.
    Group(Box<GroupCommand>),
    /// Raises the rules that apply follows; never lowers them. Reply: `Done`.
    RaiseFeatureLevel {
        /// The new level.
        level: FeatureLevel,
    },
}

/// Bytes that are not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release than this one.
    #[error("the command needs a newer release: {0}")]
    Newer(String),
    /// The bytes end too early.
    #[error("the command is cut short: {0}")]
    Truncated(#[from] PayloadTooShort),
    /// The header is not what a header is.
    #[error("the command's header does not decode: {0}")]
    Header(#[from] prost::DecodeError),
    /// Bytes behind the last batch.
    #[error("{0} bytes left over behind the command")]
    LeftOver(usize),
}

impl DecodeError {
    /// Whether a newer release could apply the command. A replica that meets such an entry must
    /// stop: skipping it would make its state differ from the others'.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer(_))
    }
}

impl ShardCommand {
    /// The entry's payload. The batches in it are shared with this command.
    #[must_use]
    pub fn encode(&self) -> Payload {
        let header = ShardCommandHeader {
            command: Some(self.to_wire()),
        };
        let length = header.encoded_len();
        let mut front = BytesMut::with_capacity(FRAME_LEN + length);
        front.put_u8(VERSION);
        // A header is far below 4 GiB: an entry holds about a MiB of batches.
        front.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // Cannot fail: BytesMut grows.
        let _ = header.encode(&mut front);
        let mut payload = Payload::from(front.freeze());
        match self {
            Self::Append { batches } => batches
                .iter()
                .for_each(|request| payload.push(request.batch.clone())),
            Self::Move(command) => command
                .batches()
                .iter()
                .for_each(|imported| payload.push(imported.batch.clone())),
            _ => {}
        }
        payload
    }

    fn to_wire(&self) -> Wire {
        match self {
            Self::Append { batches } => Wire::Append(ShardAppend {
                items: batches.iter().map(to_item).collect(),
            }),
            Self::CreatePartition { tp, config } => Wire::Create(ShardCreatePartition {
                topic: tp.topic.0,
                partition: tp.partition.0,
                config: Some(*config),
            }),
            Self::DeletePartition { tp } => Wire::Delete(ShardDeletePartition {
                topic: tp.topic.0,
                partition: tp.partition.0,
            }),
            Self::ConfigurePartition { tp, config } => Wire::Configure(ShardConfigurePartition {
                topic: tp.topic.0,
                partition: tp.partition.0,
                config: Some(*config),
            }),
            Self::TrimLog {
                tp,
                log_start,
                config_version,
            } => Wire::Trim(ShardTrimLog {
                topic: tp.topic.0,
                partition: tp.partition.0,
                log_start: log_start.0,
                config_version: *config_version,
            }),
            Self::CompactLog {
                tp,
                upto,
                time,
                config_version,
            } => Wire::Compact(ShardCompactLog {
                topic: tp.topic.0,
                partition: tp.partition.0,
                upto: upto.0,
                time_ms: time.0,
                config_version: *config_version,
            }),
            Self::Move(command) => Wire::Move(command.to_wire()),
            Self::Group(command) => Wire::Group((**command).clone()),
            Self::RaiseFeatureLevel { level } => {
                Wire::RaiseFeatureLevel(ShardRaiseFeatureLevel { level: level.0 })
            }
        }
    }

    /// The command of an entry's payload. Batches are slices of it where each lies in one part.
    ///
    /// # Errors
    /// [`DecodeError`]; the same for the same bytes on every replica of one release.
    pub fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        let mut reader = payload.reader();
        let version = reader.take(1)?;
        if *version != [VERSION] {
            return Err(DecodeError::Newer(format!(
                "its framing is {:?}, not {VERSION}",
                &*version
            )));
        }
        let length = reader.take_u32()?;
        let header = ShardCommandHeader::decode(reader.take(length as usize)?)?;
        let Some(wire) = header.command else {
            return Err(DecodeError::Newer("its kind is unknown".to_owned()));
        };
        let command = Self::from_wire(wire, &mut reader)?;
        match reader.remaining() {
            0 => Ok(command),
            rest => Err(DecodeError::LeftOver(rest)),
        }
    }

    fn from_wire(wire: Wire, reader: &mut PayloadReader<'_>) -> Result<Self, DecodeError> {
        Ok(match wire {
            Wire::Append(append) => {
                let batches = append.items.iter().map(|item| from_item(item, reader));
                Self::Append {
                    batches: batches.collect::<Result<_, _>>()?,
                }
            }
            Wire::Create(create) => Self::CreatePartition {
                tp: place(create.topic, create.partition),
                config: create.config.unwrap_or_default(),
            },
            Wire::Delete(delete) => Self::DeletePartition {
                tp: place(delete.topic, delete.partition),
            },
            Wire::Configure(configure) => Self::ConfigurePartition {
                tp: place(configure.topic, configure.partition),
                config: configure.config.unwrap_or_default(),
            },
            Wire::Trim(trim) => Self::TrimLog {
                tp: place(trim.topic, trim.partition),
                log_start: Offset(trim.log_start),
                config_version: trim.config_version,
            },
            Wire::Compact(compact) => Self::CompactLog {
                tp: place(compact.topic, compact.partition),
                upto: Offset(compact.upto),
                time: TimestampMs(compact.time_ms),
                config_version: compact.config_version,
            },
            Wire::Move(step) => Self::Move(Box::new(MoveCommand::from_wire(step, reader)?)),
            Wire::Group(command) if command.action.is_none() => {
                let text = "its kind of command to a group is unknown";
                return Err(DecodeError::Newer(text.to_owned()));
            }
            Wire::Group(command) => Self::Group(Box::new(command)),
            Wire::RaiseFeatureLevel(raise) => {
                let level = FeatureLevel(raise.level);
                if !level.is_supported() {
                    let text = format!("it raises the feature level to {level}");
                    return Err(DecodeError::Newer(text));
                }
                Self::RaiseFeatureLevel { level }
            }
        })
    }
}

fn to_item(request: &AppendRequest) -> ShardAppendItem {
    ShardAppendItem {
        topic: request.tp.topic.0,
        partition: request.tp.partition.0,
        append_time_ms: request.append_time.0,
        // A batch is 64 MiB at most.
        length: u32::try_from(request.batch.len()).unwrap_or(u32::MAX),
    }
}

fn from_item(
    item: &ShardAppendItem,
    reader: &mut PayloadReader<'_>,
) -> Result<AppendRequest, DecodeError> {
    Ok(AppendRequest {
        tp: place(item.topic, item.partition),
        append_time: TimestampMs(item.append_time_ms),
        batch: reader.take(item.length as usize)?,
    })
}

pub(crate) fn place(topic: u64, partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(topic), PartitionId(partition))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
