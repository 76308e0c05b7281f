//! The bytes of a log file: file header, group header, frame heads. FORMAT.md has the tables.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut};
use crc32fast::Hasher;

/// The format written here, and the newest that is read.
pub(crate) const VERSION: u32 = 1;
/// Length of a file header, a group header and an idle marker, in bytes.
pub(crate) const HEADER_LEN: usize = 64;
/// Where the first group of a file starts. The file header has a block of its own, so that one
/// bad block cannot take both the header and the first group, which bears witness of it.
pub(crate) const FIRST_GROUP: u64 = 4096;
/// Groups start at multiples of this.
pub(crate) const ALIGN: u64 = 64;
/// What the operating system caches as one, or a part of that. Bytes.
pub(crate) const PAGE: u64 = 4096;
/// Length of a frame's head, in bytes.
pub(crate) const FRAME_HEAD_LEN: usize = 24;

const FILE_MAGIC: &[u8; 8] = b"HWWALOG\n";
const GROUP_MAGIC: u32 = 0x4877_4731;
const FLAG_IDLE: u32 = 1;

/// `bytes` rounded up to where a group may start.
pub(crate) const fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

/// The header of one use of a file. Durable before any group of that use is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Counts uses of files, from 1; 0 in a file that is prepared but was never used.
    pub generation: u64,
    /// The sequence number of the first group.
    pub first_sequence: u64,
    /// Where the groups of the generation before this one end: known durable.
    pub previous_end: u64,
    /// The oldest generation still needed.
    pub oldest: u64,
}

/// What a file's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParsedFileHeader {
    /// A header.
    Valid(FileHeader),
    /// A header of another version of the format.
    OtherVersion(u32),
    /// Not a header.
    Invalid,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut out = bytes.as_mut_slice();
        out.put_slice(FILE_MAGIC);
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put_u64(self.generation);
        out.put_u64(self.first_sequence);
        out.put_u64(self.previous_end);
        out.put_u64(self.oldest);
        let crc = crc32fast::hash(&bytes);
        if let Some(field) = bytes.get_mut(12..16) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> ParsedFileHeader {
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return ParsedFileHeader::Invalid;
        };
        let mut input = bytes.as_slice();
        let magic = input.copy_to_bytes(FILE_MAGIC.len());
        let version = input.get_u32();
        let crc = input.get_u32();
        let mut hasher = Hasher::new();
        hasher.update(&magic);
        hasher.update(&version.to_be_bytes());
        hasher.update(&[0; 4]);
        hasher.update(input);
        if *magic != *FILE_MAGIC || hasher.finalize() != crc {
            return ParsedFileHeader::Invalid;
        }
        if version != VERSION {
            return ParsedFileHeader::OtherVersion(version);
        }
        ParsedFileHeader::Valid(Self {
            generation: input.get_u64(),
            first_sequence: input.get_u64(),
            previous_end: input.get_u64(),
            oldest: input.get_u64(),
        })
    }
}

/// The header of a group: all that was made durable by one sync. An idle marker is a header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// The file's generation.
    pub generation: u64,
    /// Counts groups over all files, from 1. An idle marker bears the next group's number.
    pub sequence: u64,
    /// Length of all frames, in bytes, without the padding behind them.
    pub body_len: u32,
    /// How many frames follow.
    pub frames: u32,
    /// Checksum of all frame heads, which bear the checksums of their payloads.
    pub heads_crc: u32,
    /// An idle marker: no frame follows, and the next group takes its place.
    pub idle: bool,
    /// Everything in this file before this byte was durable when the group was written.
    pub durable_to: u64,
    /// The oldest generation that is needed once this group is durable.
    pub oldest: u64,
}

impl GroupHeader {
    /// The bytes of the header at byte `offset` of the file.
    pub(crate) fn encode(&self, offset: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut out = bytes.as_mut_slice();
        out.put_u32(GROUP_MAGIC);
        out.put_u32(0);
        out.put_u64(self.generation);
        out.put_u64(self.sequence);
        out.put_u32(self.body_len);
        out.put_u32(self.frames);
        out.put_u32(self.heads_crc);
        out.put_u32(if self.idle { FLAG_IDLE } else { 0 });
        out.put_u64(self.durable_to);
        out.put_u64(self.oldest);
        let crc = group_crc(offset, bytes.get(8..).unwrap_or_default());
        if let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    /// The header at byte `offset`, if one of `generation` is there.
    pub(crate) fn parse(bytes: &[u8], generation: u64, offset: u64) -> Option<Self> {
        let mut input = bytes.first_chunk::<HEADER_LEN>()?.as_slice();
        if input.get_u32() != GROUP_MAGIC {
            return None;
        }
        let crc = input.get_u32();
        if group_crc(offset, input) != crc {
            return None;
        }
        let header = Self {
            generation: input.get_u64(),
            sequence: input.get_u64(),
            body_len: input.get_u32(),
            frames: input.get_u32(),
            heads_crc: input.get_u32(),
            idle: input.get_u32() & FLAG_IDLE != 0,
            durable_to: input.get_u64(),
            oldest: input.get_u64(),
        };
        (header.generation == generation).then_some(header)
    }

    /// Whether the bytes look like the beginning of a group of `generation`, whole or not.
    pub(crate) fn looks_begun(bytes: &[u8], generation: u64) -> bool {
        let Some(start) = bytes.first_chunk::<16>() else {
            return false;
        };
        let mut input = start.as_slice();
        let magic = input.get_u32();
        let _crc = input.get_u32();
        magic == GROUP_MAGIC && input.get_u64() == generation
    }

    /// Bytes from the start of this group to the start of the next.
    pub(crate) fn span(&self) -> u64 {
        aligned(HEADER_LEN as u64 + u64::from(self.body_len))
    }
}

fn group_crc(offset: u64, rest: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&offset.to_be_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// What a frame does. The numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An entry behind the last.
    Append = 1,
    /// An entry that already existed, written again so that its old file can be reused.
    Relocate = 2,
    /// Entries from the index on are gone.
    Truncate = 3,
    /// Entries up to the index are gone; the payload is the purge point's meta.
    Purge = 4,
    /// The payload is the slot's value.
    SetState = 5,
    /// The group is gone.
    Forget = 6,
}

impl FrameKind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Relocate,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::SetState,
            6 => Self::Forget,
            _ => return None,
        })
    }
}

/// A frame's head; the payload follows it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub kind: FrameKind,
    pub slot: u8,
    pub group: u32,
    /// Length of the payload, in bytes.
    pub len: u32,
    pub index: u64,
}

impl FrameHead {
    /// The bytes of the head of a frame whose payload is `parts`, in a file of `generation`.
    pub(crate) fn encode<'a>(
        &self,
        generation: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> [u8; FRAME_HEAD_LEN] {
        let mut bytes = [0; FRAME_HEAD_LEN];
        let mut out = bytes.as_mut_slice();
        out.put_u32(0);
        out.put_u8(self.kind as u8);
        out.put_u8(self.slot);
        out.put_u16(0);
        out.put_u32(self.group);
        out.put_u32(self.len);
        out.put_u64(self.index);
        let mut check = FrameCheck::new(generation, bytes.get(4..).unwrap_or_default());
        parts.for_each(|part| check.update(part));
        if let Some(field) = bytes.get_mut(..4) {
            field.copy_from_slice(&check.0.finalize().to_be_bytes());
        }
        bytes
    }

    /// The head, its checksum, and what still has to be fed to compare with it. Nothing in the
    /// head may be trusted before that.
    pub(crate) fn parse(bytes: &[u8], generation: u64) -> Option<(Self, u32, FrameCheck)> {
        let mut input = bytes.first_chunk::<FRAME_HEAD_LEN>()?.as_slice();
        let crc = input.get_u32();
        let check = FrameCheck::new(generation, input);
        let kind = FrameKind::parse(input.get_u8())?;
        let slot = input.get_u8();
        let _reserved = input.get_u16();
        let group = input.get_u32();
        let len = input.get_u32();
        Some((
            Self {
                kind,
                slot,
                group,
                len,
                index: input.get_u64(),
            },
            crc,
            check,
        ))
    }
}

/// A frame's checksum being computed.
pub(crate) struct FrameCheck(Hasher);

impl FrameCheck {
    fn new(generation: u64, head: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&generation.to_be_bytes());
        hasher.update(head);
        Self(hasher)
    }
    /// Adds the next bytes of the payload.
    pub(crate) fn update(&mut self, payload: &[u8]) {
        self.0.update(payload);
    }
    /// Whether all that was added has the checksum `crc`.
    pub(crate) fn matches(self, crc: u32) -> bool {
        self.0.finalize() == crc
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
