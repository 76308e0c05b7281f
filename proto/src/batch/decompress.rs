//! Decompresses records within a limit. The bytes come from strangers: nothing is allocated by a
//! length that they name, only by what has come out so far and by what can come out at most.
#![deny(clippy::indexing_slicing)]

use std::io::Read;

use bytes::{Buf, Bytes};

use super::compress::XERIAL_HEADER;
use super::{Compression, DecompressError};

/// A snappy copy of 3 bytes makes at most 64.
const SNAPPY_MAX_RATIO: usize = 22;
/// The magic number that begins an LZ4 frame, little-endian.
const LZ4_MAGIC: &[u8] = &0x184D_2204u32.to_le_bytes();
/// Xerial's magic alone; the versions behind it are not compared.
const XERIAL_MAGIC_LEN: usize = 8;

/// Returns the records of a batch. Uncompressed ones are returned as they are.
///
/// # Errors
/// [`DecompressError`]; `TooLarge` when more than `max` bytes come out.
pub fn decompress(
    compression: Compression,
    stored: Bytes,
    max: usize,
) -> Result<Bytes, DecompressError> {
    let mut output = Output {
        bytes: Vec::new(),
        max,
        compression,
    };
    match compression {
        // Their length was bounded before they were read.
        Compression::None => return Ok(stored),
        Compression::Gzip => {
            output.drain(&mut flate2::read::MultiGzDecoder::new(stored.reader()))?
        }
        Compression::Snappy => snappy(&stored, &mut output)?,
        Compression::Lz4 => lz4(&stored, &mut output)?,
        Compression::Zstd => super::zstd::decompress(&stored, &mut output)?,
    }
    Ok(Bytes::from(output.bytes))
}

/// What came out so far, and the limit.
pub(super) struct Output {
    bytes: Vec<u8>,
    max: usize,
    compression: Compression,
}

impl Output {
    pub(super) fn damaged(&self, reason: impl ToString) -> DecompressError {
        let compression = self.compression;
        DecompressError::Damaged {
            compression,
            reason: reason.to_string(),
        }
    }
    pub(super) fn too_large(&self) -> DecompressError {
        DecompressError::TooLarge {
            compression: self.compression,
            max: self.max,
        }
    }
    /// Bytes that may still come.
    pub(super) fn room(&self) -> usize {
        self.max.saturating_sub(self.bytes.len())
    }
    /// Reads a decoder to its end, and one byte beyond the limit at most.
    pub(super) fn drain(&mut self, decoder: &mut impl Read) -> Result<(), DecompressError> {
        let one_over = (self.room() as u64).saturating_add(1);
        let read = decoder.take(one_over).read_to_end(&mut self.bytes);
        if self.bytes.len() > self.max {
            return Err(self.too_large());
        }
        read.map(drop).map_err(|error| self.damaged(error))
    }
}

fn snappy(stored: &[u8], output: &mut Output) -> Result<(), DecompressError> {
    let magic = XERIAL_HEADER.get(..XERIAL_MAGIC_LEN).unwrap_or_default();
    if !stored.starts_with(magic) {
        return snappy_block(stored, output);
    }
    let mut rest = stored;
    while !rest.is_empty() {
        // Streams that were joined have a header before each part.
        if rest.starts_with(magic) {
            rest = rest
                .get(XERIAL_HEADER.len()..)
                .ok_or_else(|| output.damaged("short header"))?;
            continue;
        }
        let len = rest
            .try_get_i32()
            .map_err(|_| output.damaged("short block length"))?;
        let len = usize::try_from(len).map_err(|_| output.damaged("negative block length"))?;
        let Some((block, others)) = rest.split_at_checked(len) else {
            return Err(output.damaged("block reaches beyond the end"));
        };
        snappy_block(block, output)?;
        rest = others;
    }
    Ok(())
}

fn snappy_block(block: &[u8], output: &mut Output) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(block).map_err(|error| output.damaged(error))?;
    if len > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(output.damaged("block claims more than it can hold"));
    }
    if len > output.room() {
        return Err(output.too_large());
    }
    let start = output.bytes.len();
    output.bytes.resize(start + len, 0);
    let place = output.bytes.get_mut(start..).unwrap_or_default();
    let result = snap::raw::Decoder::new().decompress(block, place);
    result.map(drop).map_err(|error| output.damaged(error))
}

fn lz4(stored: &[u8], output: &mut Output) -> Result<(), DecompressError> {
    let mut rest = stored;
    while !rest.is_empty() {
        // Legacy and skippable frames exist outside Kafka only.
        if !rest.starts_with(LZ4_MAGIC) {
            return Err(output.damaged("no frame begins here"));
        }
        // One decoder for each frame: it works with the largest block that its frame declares,
        // 4 MiB at most.
        let mut decoder = lz4_flex::frame::FrameDecoder::new(rest);
        output.drain(&mut decoder)?;
        let left = decoder.into_inner();
        if left.len() == rest.len() {
            return Err(output.damaged("frame is empty"));
        }
        rest = left;
    }
    Ok(())
}
