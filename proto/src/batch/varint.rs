//! Zigzag variable-length numbers, seven bits a byte, least significant first.
#![deny(clippy::indexing_slicing)]

/// Why a number could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VarintError {
    /// The bytes end within it.
    Truncated,
    /// It does not fit its type.
    TooLong,
}

/// Reads a number of at most 32 bits and says how many bytes it took.
#[inline]
pub(super) fn read_i32(bytes: &[u8]) -> Result<(i32, usize), VarintError> {
    let (raw, len) = read_u64(bytes, 5)?;
    let raw = u32::try_from(raw).map_err(|_| VarintError::TooLong)?;
    Ok(((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()), len))
}

/// Reads a number of at most 64 bits and says how many bytes it took.
#[inline]
pub(super) fn read_i64(bytes: &[u8]) -> Result<(i64, usize), VarintError> {
    let (raw, len) = read_u64(bytes, 10)?;
    Ok(((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()), len))
}

#[inline]
fn read_u64(bytes: &[u8], max_len: usize) -> Result<(u64, usize), VarintError> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(max_len).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if at == 9 && bits > 1 {
            return Err(VarintError::TooLong);
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    if bytes.len() < max_len {
        Err(VarintError::Truncated)
    } else {
        Err(VarintError::TooLong)
    }
}

/// How many bytes a number takes.
#[inline]
pub(super) const fn len_i64(value: i64) -> usize {
    let raw = zigzag(value);
    let bits = 64 - (raw | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes a number. Numbers of 32 and 64 bits are written alike.
#[inline]
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw > 0x7f {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
#[path = "varint_tests.rs"]
mod tests;
