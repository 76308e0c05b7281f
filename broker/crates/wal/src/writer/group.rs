//! Frames laid out as one group: heads are built, payloads are only pointed at.

use std::io::IoSlice;

use bytes::Bytes;

use crate::frame::{ALIGN, FRAME_HEAD_LEN, FrameHead, FrameKind, GroupHeader, HEADER_LEN, aligned};
use crate::index::Location;
use crate::{GroupId, LogIndex, Op};

static PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];

/// A frame to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub head: FrameHead,
    /// The payload's parts.
    pub body: &'a [Bytes],
}

impl<'a> Frame<'a> {
    pub(crate) fn new(
        group: GroupId,
        kind: FrameKind,
        slot: u8,
        index: LogIndex,
        body: &'a [Bytes],
    ) -> Self {
        let len: usize = body.iter().map(Bytes::len).sum();
        // Submissions are bounded far below 4 GiB before they are queued.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self {
            head: FrameHead {
                kind,
                slot,
                group: group.0,
                len,
                index: index.0,
            },
            body,
        }
    }

    /// Whether it is an entry, or what rides along with entries: no state stands alone in slot 1.
    #[cfg(feature = "mutant")]
    pub(crate) fn is_of_entries(&self) -> bool {
        self.head.kind == FrameKind::Append || self.head.slot == 1
    }

    pub(crate) fn of(group: GroupId, op: &'a Op) -> Self {
        let one = std::slice::from_ref;
        match op {
            Op::Append { index, payload } => {
                Self::new(group, FrameKind::Append, 0, *index, payload.parts())
            }
            Op::Truncate { from } => Self::new(group, FrameKind::Truncate, 0, *from, &[]),
            Op::Purge { upto, meta } => Self::new(group, FrameKind::Purge, 0, *upto, one(meta)),
            Op::SetState { slot, value } => {
                Self::new(group, FrameKind::SetState, *slot, LogIndex(0), one(value))
            }
            Op::Forget => Self::new(group, FrameKind::Forget, 0, LogIndex(0), &[]),
        }
    }
}

/// Where a group goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub generation: u64,
    pub offset: u64,
    pub sequence: u64,
    pub oldest: u64,
}

/// Bytes a group takes, from its start to the next, for frames of `frame_bytes` in all.
pub(crate) fn group_span(frame_bytes: u64) -> u64 {
    aligned(HEADER_LEN as u64 + frame_bytes)
}

/// The heads of a group, and where each of its frames will lie.
pub(crate) struct Encoded {
    heads: Vec<u8>,
    pub locations: Vec<Location>,
    pub span: u64,
    padding: usize,
}

impl Encoded {
    pub(crate) fn new(frames: &[Frame<'_>], place: Place) -> Self {
        let mut heads = vec![0; HEADER_LEN];
        heads.reserve(frames.len() * FRAME_HEAD_LEN);
        let mut locations = Vec::with_capacity(frames.len());
        let mut offset = place.offset + HEADER_LEN as u64;
        for frame in frames {
            let parts = frame.body.iter().map(|part| &part[..]);
            heads.extend_from_slice(&frame.head.encode(place.generation, parts));
            let location = Location {
                generation: place.generation,
                offset,
                len: frame.head.len,
            };
            offset += location.frame_len();
            locations.push(location);
        }
        let body_len = offset - place.offset - HEADER_LEN as u64;
        let header = GroupHeader {
            generation: place.generation,
            sequence: place.sequence,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            frames: u32::try_from(frames.len()).unwrap_or(u32::MAX),
            heads_crc: crc32fast::hash(&heads[HEADER_LEN..]),
            idle: false,
            durable_to: place.offset,
            oldest: place.oldest,
        };
        heads[..HEADER_LEN].copy_from_slice(&header.encode(place.offset));
        let span = header.span();
        let padding = usize::try_from(span - HEADER_LEN as u64 - body_len).unwrap_or(0);
        Self {
            heads,
            locations,
            span,
            padding,
        }
    }

    /// What to write, in order. `frames` are those the group was made of.
    pub(crate) fn slices<'a>(&'a self, frames: &[Frame<'a>]) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(2 * frames.len() + 2);
        let (mut start, mut end) = (0, HEADER_LEN);
        for frame in frames {
            end += FRAME_HEAD_LEN;
            if frame.head.len > 0 {
                slices.push(IoSlice::new(&self.heads[start..end]));
                let parts = frame.body.iter().filter(|part| !part.is_empty());
                slices.extend(parts.map(|part| IoSlice::new(part)));
                start = end;
            }
        }
        if start < end {
            slices.push(IoSlice::new(&self.heads[start..end]));
        }
        if self.padding > 0 {
            slices.push(IoSlice::new(&PADDING[..self.padding]));
        }
        slices
    }
}
