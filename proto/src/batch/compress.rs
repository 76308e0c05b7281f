//! Compresses records in the framing that Kafka's clients read.

use std::io::{self, Write};

use super::Compression;

/// What xerial's Java library begins a stream with: magic, version 1, compatible from version 1.
pub(super) const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes that xerial's library compresses at a time.
const XERIAL_BLOCK: usize = 32 * 1024;

/// Appends `records`, compressed, to `out`. What an error leaves in `out` has no meaning.
pub(super) fn compress(kind: Compression, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match kind {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            gzip.write_all(records)?;
            gzip.finish()?;
        }
        Compression::Snappy => snappy(records, out)?,
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            lz4.write_all(records)?;
            lz4.finish().map_err(io::Error::other)?;
        }
        Compression::Zstd => {
            ruzstd::encoding::compress(records, out, ruzstd::encoding::CompressionLevel::Fastest);
        }
    }
    Ok(())
}

fn snappy(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(records.len().min(XERIAL_BLOCK))];
    for chunk in records.chunks(XERIAL_BLOCK) {
        let len = encoder
            .compress(chunk, &mut block)
            .map_err(io::Error::other)?;
        let len_field = u32::try_from(len).map_err(io::Error::other)?;
        out.extend_from_slice(&len_field.to_be_bytes());
        out.extend_from_slice(block.get(..len).unwrap_or_default());
    }
    Ok(())
}
