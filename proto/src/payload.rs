//! A log entry's payload: logically one byte string, kept as the shared parts it arrived in, so
//! that a batch goes to the log, to the followers and to the tail without being copied.

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

/// Opaque bytes in shared parts. Part boundaries carry no meaning: two payloads with the same
/// concatenation are equal to every reader.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    parts: SmallVec<[Bytes; 2]>,
    len: usize,
}

/// A payload ended before the bytes that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload ends {missing} bytes too early")]
pub struct PayloadTooShort {
    /// How many bytes were missing.
    pub missing: usize,
}

impl Payload {
    /// An empty payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds bytes at the end.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }
    /// Total length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The parts, none empty, in order.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }
    /// All bytes in one piece; copies only when there is more than one part.
    #[must_use]
    pub fn to_contiguous(&self) -> Bytes {
        if let [one] = self.parts.as_slice() {
            return one.clone();
        }
        let mut all = BytesMut::with_capacity(self.len);
        for part in &self.parts {
            all.extend_from_slice(part);
        }
        all.freeze()
    }
    /// Reads from the start.
    #[must_use]
    pub fn reader(&self) -> PayloadReader<'_> {
        PayloadReader {
            parts: &self.parts,
            at: 0,
            rest: self.len,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        let mut payload = Self::new();
        payload.push(part);
        payload
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut payload = Self::new();
        parts.into_iter().for_each(|part| payload.push(part));
        payload
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self
                .parts
                .iter()
                .flat_map(|p| p.iter())
                .eq(other.parts.iter().flat_map(|p| p.iter()))
    }
}

impl Eq for Payload {}

/// Takes bytes off a payload, shared where they lie in one part.
#[derive(Debug, Clone)]
pub struct PayloadReader<'a> {
    parts: &'a [Bytes],
    at: usize,
    rest: usize,
}

impl PayloadReader<'_> {
    /// Bytes not yet taken.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest
    }
    /// The next `count` bytes; copied only if they span parts.
    ///
    /// # Errors
    /// [`PayloadTooShort`]; nothing is taken then.
    pub fn take(&mut self, count: usize) -> Result<Bytes, PayloadTooShort> {
        if count > self.rest {
            return Err(PayloadTooShort {
                missing: count - self.rest,
            });
        }
        self.rest -= count;
        if let Some(shared) = self.take_shared(count) {
            return Ok(shared);
        }
        let mut copy = BytesMut::with_capacity(count);
        while copy.len() < count {
            let wanted = count - copy.len();
            let Some((part, others)) = self.parts.split_first() else {
                break;
            };
            let mut rest = part.slice(self.at..);
            if rest.len() > wanted {
                rest.truncate(wanted);
                self.at += wanted;
            } else {
                self.parts = others;
                self.at = 0;
            }
            copy.extend_from_slice(&rest);
        }
        Ok(copy.freeze())
    }
    fn take_shared(&mut self, count: usize) -> Option<Bytes> {
        if count == 0 {
            return Some(Bytes::new());
        }
        let (part, others) = self.parts.split_first()?;
        if part.len() - self.at < count {
            return None;
        }
        let taken = part.slice(self.at..self.at + count);
        self.at += count;
        if self.at == part.len() {
            self.parts = others;
            self.at = 0;
        }
        Some(taken)
    }
    /// The next four bytes as a big-endian number.
    ///
    /// # Errors
    /// [`PayloadTooShort`].
    pub fn take_u32(&mut self) -> Result<u32, PayloadTooShort> {
        Ok(self.take(4)?.get_u32())
    }
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
