//! Zstandard frames, with a window no larger than what the frame can hold or the caller allows.
#![deny(clippy::indexing_slicing)]

use std::io::Read;

use bytes::Buf;
use ruzstd::decoding::StreamingDecoder;

use super::DecompressError;
use super::decompress::Output;

const MAGIC: u32 = 0xFD2F_B528;
/// Sixteen magic numbers of frames that carry no data.
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
/// No block holds more.
const MAX_BLOCK: usize = 128 * 1024;
/// A block that repeats one byte takes four, and no block takes less than three.
const MIN_BLOCK: usize = 3;
const SINGLE_SEGMENT: u8 = 0x20;

pub(super) fn decompress(stored: &[u8], output: &mut Output) -> Result<(), DecompressError> {
    let mut rest = stored;
    while !rest.is_empty() {
        let mut frame = rest;
        let magic = frame
            .try_get_u32_le()
            .map_err(|_| output.damaged("short magic number"))?;
        rest = match magic {
            MAGIC => one_frame(frame, output)?,
            skip if SKIPPABLE.contains(&skip) => {
                let len = frame
                    .try_get_u32_le()
                    .map_err(|_| output.damaged("short skip"))?;
                let after = frame.get(len as usize..);
                after.ok_or_else(|| output.damaged("skip beyond the end"))?
            }
            _ => return Err(output.damaged("no frame begins here")),
        };
    }
    Ok(())
}

/// Decodes a frame whose magic number has been read and returns what follows it.
///
/// A frame names the window its decoder must keep, up to terabytes, whatever it holds. More than
/// can come out is never needed, so the window is lowered to that before the decoder sees it.
fn one_frame<'a>(frame: &'a [u8], output: &mut Output) -> Result<&'a [u8], DecompressError> {
    let blocks = frame.len() / MIN_BLOCK + 1;
    let most = blocks
        .saturating_mul(MAX_BLOCK)
        .min(output.room().max(MAX_BLOCK));
    let (&descriptor, after) = frame
        .split_first()
        .ok_or_else(|| output.damaged("short frame"))?;
    let mut head = Vec::with_capacity(6);
    head.extend_from_slice(&MAGIC.to_le_bytes());
    head.push(descriptor);
    let mut body = after;
    if descriptor & SINGLE_SEGMENT == 0 {
        let (&window, after) = after
            .split_first()
            .ok_or_else(|| output.damaged("short frame"))?;
        head.push(window.min(window_for(most)));
        body = after;
    }
    let mut source = Joined { head: &head, body };
    // A frame in a single segment names its content's size as the window: refused beyond `most`.
    let limit = (most as u64).saturating_mul(2);
    let mut decoder = StreamingDecoder::new_with_max_window_size(&mut source, limit)
        .map_err(|error| output.damaged(error))?;
    output.drain(&mut decoder)?;
    let (_, decoder) = decoder.into_parts();
    if let Some(stored) = decoder.get_checksum_from_data() {
        let computed = decoder.get_calculated_checksum();
        if computed.is_some_and(|computed| computed != stored) {
            return Err(output.damaged("content checksum does not match"));
        }
    }
    Ok(source.body)
}

/// The window descriptor (five bits exponent, three bits mantissa left zero) of the least power of
/// two that is at least `bytes`. Descriptors order as the windows they describe.
fn window_for(bytes: usize) -> u8 {
    let log = bytes.max(MAX_BLOCK).next_power_of_two().ilog2();
    u8::try_from(log - 10).map_or(u8::MAX, |exponent| exponent.min(31) << 3)
}

/// A rewritten head, then the rest as it is.
struct Joined<'h, 'a> {
    head: &'h [u8],
    body: &'a [u8],
}

impl Read for Joined<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.head.is_empty() {
            self.body.read(buffer)
        } else {
            self.head.read(buffer)
        }
    }
}
