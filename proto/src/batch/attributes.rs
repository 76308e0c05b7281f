//! The attribute bits of a batch: compression, timestamp type, transactional, control.
#![deny(clippy::indexing_slicing)]

use super::BatchError;

const COMPRESSION_MASK: u16 = 0x07;
const LOG_APPEND_TIME: u16 = 0x08;
const TRANSACTIONAL: u16 = 0x10;
const CONTROL: u16 = 0x20;
const DELETE_HORIZON: u16 = 0x40;

/// How the records of a batch are compressed. The header never is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// Snappy in the framing of xerial's Java library, as Kafka writes it. Read also without it.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// Every kind, in the order of their numbers on the wire.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
    /// The kind with this number; `None` for a number that is not assigned.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
    /// The name that configuration uses: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(pub String);

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Attribute bits. Bits without a meaning are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes {
    bits: u16,
    compression: Compression,
}

impl Attributes {
    /// Attributes with only a compression.
    #[must_use]
    pub const fn new(compression: Compression) -> Self {
        Self {
            bits: compression.id() as u16,
            compression,
        }
    }
    /// Reads the field of the header.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`].
    pub fn from_bits(bits: u16) -> Result<Self, BatchError> {
        let id = (bits & COMPRESSION_MASK) as u8;
        let compression = Compression::from_id(id).ok_or(BatchError::UnknownCompression { id })?;
        Ok(Self { bits, compression })
    }
    /// The field of the header.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.bits
    }
    /// How the records are compressed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        self.compression
    }
    /// Whether every record's time is the batch's maximum timestamp, set by the broker.
    #[must_use]
    pub const fn is_log_append_time(self) -> bool {
        self.bits & LOG_APPEND_TIME != 0
    }
    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.bits & TRANSACTIONAL != 0
    }
    /// Whether the records are markers for readers and not data. Clients may not produce them.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.bits & CONTROL != 0
    }
    /// Whether the base timestamp is the time from which compaction may drop tombstones.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.bits & DELETE_HORIZON != 0
    }
    /// The same with the broker's append time.
    #[must_use]
    pub const fn with_log_append_time(self) -> Self {
        Self {
            bits: self.bits | LOG_APPEND_TIME,
            compression: self.compression,
        }
    }
    /// The same as part of a transaction.
    #[must_use]
    pub const fn with_transactional(self) -> Self {
        Self {
            bits: self.bits | TRANSACTIONAL,
            compression: self.compression,
        }
    }
    /// The same as a batch of markers.
    #[must_use]
    pub const fn with_control(self) -> Self {
        Self {
            bits: self.bits | CONTROL,
            compression: self.compression,
        }
    }
}
