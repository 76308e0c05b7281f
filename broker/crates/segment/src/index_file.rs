//! Index files of segments: header, checksum, fixed-size entries. See FORMAT.md.
//!
//! An index is derived from the segment: it is never synced, and a missing or damaged one is
//! rebuilt.

#![deny(clippy::indexing_slicing)]

use std::io;
use std::path::Path;

use bytes::{Buf, BufMut};
use highwater_env::{Disk, DiskFile, OpenMode};
use highwater_proto::Offset;

use crate::layout::{OFFSET_INDEX, SegmentName, TIME_INDEX};
use crate::map::FileMap;
use crate::sparse_index::{Entry, SparseIndexes, floor};

const MAGIC: &[u8; 8] = b"HWINDEX\n";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 40;
const ENTRY_LEN: usize = 16;
/// The checksum covers the header up to its own place.
const CHECKED_HEADER: usize = 32;

/// Which of the two indexes a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexKind {
    Offsets = 1,
    Times = 2,
}

impl IndexKind {
    fn extension(self) -> &'static str {
        match self {
            Self::Offsets => OFFSET_INDEX,
            Self::Times => TIME_INDEX,
        }
    }
}

/// Why an index file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("it is missing")]
    Missing,
    #[error("its {0} is wrong")]
    Wrong(&'static str),
    #[error("it has format version {0}")]
    Version(u8),
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
}

/// The content of an index file.
pub(crate) fn encode(kind: IndexKind, base: Offset, covered: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN);
    out.put_slice(MAGIC);
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_u16(0);
    // A segment has fewer batches than 2^32: spacing and segment size see to that by far.
    out.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    out.put_u64(base.0);
    out.put_u64(covered);
    let mut body = Vec::with_capacity(entries.len() * ENTRY_LEN);
    for entry in entries {
        body.put_i64(entry.key);
        body.put_u64(entry.position);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out);
    crc.update(&body);
    out.put_u32(crc.finalize());
    out.put_u32(0);
    out.extend_from_slice(&body);
    out
}

/// Checks the content of an index file. Returns the bytes of the segment that it covers.
pub(crate) fn check(content: &[u8], kind: IndexKind, base: Offset) -> Result<u64, IndexError> {
    let (header, body) = content
        .split_at_checked(HEADER_LEN)
        .ok_or(IndexError::Wrong("length"))?;
    let (checked, mut rest) = header
        .split_at_checked(CHECKED_HEADER)
        .ok_or(IndexError::Wrong("length"))?;
    let mut fields = checked
        .strip_prefix(MAGIC.as_slice())
        .ok_or(IndexError::Wrong("magic"))?;
    let version = fields.get_u8();
    if version != VERSION {
        return Err(IndexError::Version(version));
    }
    let found_kind = fields.get_u8();
    let _reserved = fields.get_u16();
    let count = fields.get_u32() as usize;
    let found_base = fields.get_u64();
    let covered = fields.get_u64();
    if count.checked_mul(ENTRY_LEN) != Some(body.len()) {
        return Err(IndexError::Wrong("length"));
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(checked);
    crc.update(body);
    if crc.finalize() != rest.get_u32() || rest.get_u32() != 0 {
        return Err(IndexError::Wrong("checksum"));
    }
    if found_kind != kind as u8 || found_base != base.0 {
        return Err(IndexError::Wrong("identity"));
    }
    Ok(covered)
}

/// The bytes of a checked index file.
#[derive(Debug)]
pub(crate) enum IndexBytes {
    Mapped(FileMap),
    Owned(Vec<u8>),
}

impl IndexBytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
    fn count(&self) -> usize {
        self.as_slice().len().saturating_sub(HEADER_LEN) / ENTRY_LEN
    }
    fn entry(&self, at: usize) -> Option<Entry> {
        let start = HEADER_LEN + at * ENTRY_LEN;
        let mut bytes = self.as_slice().get(start..start + ENTRY_LEN)?;
        Some(Entry {
            key: bytes.get_i64(),
            position: bytes.get_u64(),
        })
    }
    fn entries(&self) -> Vec<Entry> {
        (0..self.count()).filter_map(|i| self.entry(i)).collect()
    }
}

/// Both indexes of a segment that no longer changes.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    offsets: IndexBytes,
    times: IndexBytes,
}

impl SealedIndex {
    /// From memory, when the files could not be written.
    pub(crate) fn in_memory(base: Offset, covered: u64, indexes: &SparseIndexes) -> Self {
        let bytes = |kind, entries| IndexBytes::Owned(encode(kind, base, covered, entries));
        Self {
            offsets: bytes(IndexKind::Offsets, &indexes.offsets),
            times: bytes(IndexKind::Times, &indexes.times),
        }
    }
    /// Where to start looking for `offset`.
    pub(crate) fn offset_floor(&self, offset: u64) -> u64 {
        let below = |key: i64| key <= offset.cast_signed();
        floor(self.offsets.count(), |i| self.offsets.entry(i), below).unwrap_or(0)
    }
    /// Where to start looking for the first batch that reaches `timestamp`.
    pub(crate) fn time_floor(&self, timestamp: i64) -> u64 {
        let below = |key: i64| key < timestamp;
        floor(self.times.count(), |i| self.times.entry(i), below).unwrap_or(0)
    }
}

/// Reads one index file whole, checks it, and maps it if asked and possible. Returns the bytes of
/// the segment that it covers.
///
/// Checked by positional reads before it is mapped: a sector that cannot be read is an error here.
fn load<D: Disk>(
    disk: &D,
    name: &SegmentName,
    kind: IndexKind,
    map: bool,
) -> Result<(IndexBytes, u64), IndexError> {
    let path = name.path(kind.extension());
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(IndexError::Missing),
        Err(e) => return Err(e.into()),
    };
    let len = usize::try_from(file.len()?).map_err(|_| IndexError::Wrong("length"))?;
    let mut content = vec![0; len];
    file.read_exact_at(&mut content, 0)?;
    let covered = check(&content, kind, name.base)?;
    let mapped = file
        .os_file()
        .filter(|_| map)
        .and_then(|os| FileMap::new(os).ok());
    let bytes = match mapped {
        Some(map) if map.len() == content.len() => IndexBytes::Mapped(map),
        _ => IndexBytes::Owned(content),
    };
    Ok((bytes, covered))
}

/// The indexes of a sealed segment of `len` bytes.
pub(crate) fn load_sealed<D: Disk>(
    disk: &D,
    name: &SegmentName,
    len: u64,
) -> Result<SealedIndex, IndexError> {
    let (offsets, offsets_cover) = load(disk, name, IndexKind::Offsets, true)?;
    let (times, times_cover) = load(disk, name, IndexKind::Times, true)?;
    if offsets_cover != len || times_cover != len {
        return Err(IndexError::Wrong("covered length"));
    }
    Ok(SealedIndex { offsets, times })
}

/// The indexes of the first part of a segment, as stored while it grew; entries at or beyond
/// `len` are left out. The result covers batches up to its last entry.
pub(crate) fn load_prefix<D: Disk>(
    disk: &D,
    name: &SegmentName,
    len: u64,
) -> Result<SparseIndexes, IndexError> {
    let (offsets, _) = load(disk, name, IndexKind::Offsets, false)?;
    let (times, _) = load(disk, name, IndexKind::Times, false)?;
    let below = |bytes: &IndexBytes| {
        let mut entries = bytes.entries();
        entries.retain(|entry| entry.position < len);
        entries
    };
    Ok(SparseIndexes {
        offsets: below(&offsets),
        times: below(&times),
        known_from: 0,
    })
}

/// Writes both index files, each whole and then renamed, so that a map of an older one stays
/// valid. Not synced: a checksum finds what a power loss leaves.
pub(crate) fn store<D: Disk>(
    disk: &D,
    name: &SegmentName,
    covered: u64,
    indexes: &SparseIndexes,
) -> io::Result<()> {
    let temporary = name.path("tmp");
    let kinds = [
        (IndexKind::Offsets, &indexes.offsets),
        (IndexKind::Times, &indexes.times),
    ];
    for (kind, entries) in kinds {
        let content = encode(kind, name.base, covered, entries);
        write_and_rename(disk, &temporary, &name.path(kind.extension()), &content)?;
    }
    Ok(())
}

fn write_and_rename<D: Disk>(
    disk: &D,
    temporary: &Path,
    path: &Path,
    content: &[u8],
) -> io::Result<()> {
    let file = disk.open(temporary, OpenMode::Truncate)?;
    file.write_at(content, 0)?;
    drop(file);
    disk.rename(temporary, path)
}

#[cfg(test)]
#[path = "index_file_tests.rs"]
mod tests;
