//! One file, group by group: where its groups end, and whether that is its end, a torn tail, or
//! damage.

use std::sync::Arc;

use bytes::Bytes;
use highwater_env::DiskFile;

use super::{TornTail, damaged};
use crate::file::{WalFile, open_error};
use crate::frame::{
    ALIGN, FIRST_GROUP, FRAME_HEAD_LEN, FileHeader, FrameHead, FrameKind, GroupHeader, HEADER_LEN,
};
use crate::index::{Change, Location};
use crate::recover::window::Window;
use crate::{GroupId, WalOpenError};

/// What a file holds.
pub(super) struct Scan {
    /// All frames of whole groups, in order.
    pub changes: Vec<Change>,
    /// Where the next group goes.
    pub end: u64,
    pub next_sequence: u64,
    /// The oldest generation needed, as the newest group (or the header) says.
    pub oldest: u64,
    /// Whether a marker says that the last group is durable.
    pub proven: bool,
    /// Start and end of the last group.
    pub last_group: Option<(u64, u64)>,
    pub torn: Option<TornTail>,
}

/// Reads a file. `next` is the header of the file behind it: it says where this one ends.
pub(super) fn scan<F: DiskFile>(
    file: &Arc<WalFile<F>>,
    header: &FileHeader,
    next: Option<&FileHeader>,
    window: &mut Window,
) -> Result<Scan, WalOpenError> {
    window.reset();
    let mut scanner = Scanner {
        file,
        generation: header.generation,
        window,
        found: Scan {
            changes: Vec::new(),
            end: FIRST_GROUP,
            next_sequence: header.first_sequence,
            oldest: header.oldest,
            proven: false,
            last_group: None,
            torn: None,
        },
    };
    match next {
        Some(next) => scanner.sealed(next)?,
        None => scanner.open_ended()?,
    }
    Ok(scanner.found)
}

struct Scanner<'a, F> {
    file: &'a WalFile<F>,
    generation: u64,
    window: &'a mut Window,
    found: Scan,
}

/// What lies where a group should start.
enum Place {
    /// A whole group, which was taken.
    Group,
    /// A marker of this place.
    Marker,
    /// The beginning of a group of this many bytes.
    Begun(u64),
    /// Nothing of this generation.
    Nothing,
}

impl<F: DiskFile> Scanner<'_, F> {
    /// Reads a file that another one follows: everything before its end is durable.
    fn sealed(&mut self, next: &FileHeader) -> Result<(), WalOpenError> {
        let end = next.previous_end;
        while self.found.end < end {
            let at = self.found.end;
            match self.place()? {
                Place::Group => {}
                Place::Marker | Place::Begun(_) | Place::Nothing => {
                    let what = "a group does not match its checksum";
                    return Err(damaged(self.file, at, end, what));
                }
            }
        }
        if self.found.end != end || self.found.next_sequence != next.first_sequence {
            let what = "the file behind it does not continue it";
            return Err(damaged(self.file, self.found.end.min(end), end, what));
        }
        Ok(())
    }

    /// Reads the newest file: its end has to be found.
    fn open_ended(&mut self) -> Result<(), WalOpenError> {
        let begun = loop {
            match self.place()? {
                Place::Group => {}
                Place::Marker => {
                    self.found.proven = true;
                    return Ok(());
                }
                Place::Begun(bytes) => break Some(bytes),
                Place::Nothing => break None,
            }
        };
        let offset = self.found.end;
        if let Some(durable_to) = self.witness(offset)? {
            let what = "a group does not match its checksum";
            return Err(damaged(self.file, offset, durable_to, what));
        }
        let file = self.file.path.clone();
        self.found.torn = begun.map(|bytes| TornTail {
            file,
            offset,
            bytes,
        });
        Ok(())
    }

    /// Takes the group at the present end, if a whole one is there.
    fn place(&mut self) -> Result<Place, WalOpenError> {
        let at = self.found.end;
        let generation = self.generation;
        let start = self.get(at, HEADER_LEN)?;
        let begun = GroupHeader::looks_begun(start, generation);
        let Some(header) = GroupHeader::parse(start, generation, at) else {
            return Ok(if begun {
                Place::Begun(HEADER_LEN as u64)
            } else {
                Place::Nothing
            });
        };
        if header.sequence != self.found.next_sequence {
            return Ok(Place::Begun(header.span()));
        }
        if header.idle {
            self.found.oldest = self.found.oldest.max(header.oldest);
            return Ok(Place::Marker);
        }
        let known = self.found.changes.len();
        if !self.take_frames(&header)? {
            self.found.changes.truncate(known);
            return Ok(Place::Begun(header.span()));
        }
        self.found.oldest = self.found.oldest.max(header.oldest);
        self.found.next_sequence += 1;
        self.found.end = at + header.span();
        self.found.last_group = Some((at, self.found.end));
        Ok(Place::Group)
    }

    /// Reads the frames of a group; `false` if any of them is not what was written.
    fn take_frames(&mut self, header: &GroupHeader) -> Result<bool, WalOpenError> {
        let mut at = self.found.end + HEADER_LEN as u64;
        let end = at + u64::from(header.body_len);
        if end > self.file.len {
            return Ok(false);
        }
        let generation = self.generation;
        let mut heads = crc32fast::Hasher::new();
        for _ in 0..header.frames {
            let bytes = self.get(at, FRAME_HEAD_LEN)?;
            heads.update(bytes);
            let Some((head, crc, mut check)) = FrameHead::parse(bytes, generation) else {
                return Ok(false);
            };
            let location = Location {
                generation,
                offset: at,
                len: head.len,
            };
            at += location.frame_len();
            if at > end {
                return Ok(false);
            }
            let mut payload_at = location.offset + FRAME_HEAD_LEN as u64;
            let keep = matches!(head.kind, FrameKind::Purge | FrameKind::SetState);
            let mut value = Vec::new();
            while payload_at < at {
                let rest = usize::try_from(at - payload_at).unwrap_or(usize::MAX);
                let part = self.get(payload_at, rest)?;
                if part.is_empty() {
                    return Ok(false);
                }
                check.update(part);
                if keep {
                    value.extend_from_slice(part);
                }
                payload_at += part.len() as u64;
            }
            if !check.matches(crc) {
                return Ok(false);
            }
            self.found.changes.push(Change {
                group: GroupId(head.group),
                kind: head.kind,
                slot: head.slot,
                index: head.index,
                location,
                value: Bytes::from(value),
            });
        }
        Ok(at == end && heads.finalize() == header.heads_crc)
    }

    /// Looks behind a bad group for one that says that everything before it was durable. A group
    /// is written only when the one before it is synced, so a power loss alone leaves none.
    fn witness(&mut self, bad: u64) -> Result<Option<u64>, WalOpenError> {
        let mut at = bad + ALIGN;
        loop {
            let (generation, sequence) = (self.generation, self.found.next_sequence);
            let piece = self.get(at, usize::MAX)?;
            if piece.len() < HEADER_LEN {
                return Ok(None);
            }
            for (slot, offset) in piece
                .chunks_exact(HEADER_LEN)
                .zip((at..).step_by(HEADER_LEN))
            {
                let Some(header) = GroupHeader::parse(slot, generation, offset) else {
                    continue;
                };
                if header.sequence > sequence && header.durable_to > bad {
                    return Ok(Some(header.durable_to));
                }
            }
            at += (piece.len() / HEADER_LEN * HEADER_LEN) as u64;
        }
    }

    fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], WalOpenError> {
        let file = self.file;
        self.window
            .get(&file.file, offset, len)
            .map_err(open_error("read", &file.path))
    }
}
