//! One file, group by group: where its groups end, and whether that is its end, a torn tail, or
//! damage.

use std::sync::Arc;

use bytes::Bytes;
use highwater_env::DiskFile;
use highwater_mutant::mutant;

use super::{TornTail, damaged};
use crate::error::BadPlace;
use crate::file::{WalFile, open_error};
use crate::frame::{
    ALIGN, FIRST_GROUP, FRAME_HEAD_LEN, FileHeader, FrameHead, FrameKind, GroupHeader, HEADER_LEN,
};
use crate::index::{Change, Location};
use crate::recover::window::Window;
use crate::{GroupId, WalOpenError};

/// A frame of a durable group whose payload is not what was written. What the frame did is known: its
/// head is covered by the checksum of all heads.
#[derive(Debug, Clone)]
pub(crate) struct BadFrame {
    pub place: BadPlace,
    pub change: Change,
    /// Up to where the file is known durable, in bytes.
    pub durable_to: u64,
}

/// What a file holds.
pub(crate) struct Scan {
    /// All frames of durable groups, in order, those with a bad payload among them.
    pub changes: Vec<Change>,
    /// Those of them whose payload is not what was written.
    pub bad: Vec<BadFrame>,
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
    let mut scanner = Scanner::new(file, header, window, next.map(|next| next.previous_end));
    match next {
        Some(next) => scanner.sealed(next)?,
        None => scanner.open_ended()?,
    }
    Ok(scanner.found)
}

impl Scan {
    /// Of a file of which nothing is read yet.
    pub(crate) fn new(header: &FileHeader) -> Self {
        Self {
            changes: Vec::new(),
            bad: Vec::new(),
            end: FIRST_GROUP,
            next_sequence: header.first_sequence,
            oldest: header.oldest,
            proven: false,
            last_group: None,
            torn: None,
        }
    }
}

/// Reads a file group by group.
pub(crate) struct Scanner<'a, F> {
    file: &'a WalFile<F>,
    generation: u64,
    window: &'a mut Window,
    /// Everything before this byte is known durable, from elsewhere than from this file.
    durable_to: Option<u64>,
    pub(crate) found: Scan,
}

/// What lies where a group should start.
pub(crate) enum Place {
    /// A group, which was taken: a whole one, or one that is known to have been durable and of
    /// which payloads alone are bad.
    Group,
    /// A marker of this place.
    Marker,
    /// The beginning of a group of this many bytes.
    Begun(u64),
    /// Nothing of this generation.
    Nothing,
}

/// What the frames of a group are.
enum Frames {
    /// As they were written.
    Whole,
    /// Known one by one, while the payloads of some are not what was written.
    Marred(Vec<(Change, &'static str)>),
    /// Not known.
    Unknown,
}

impl<'a, F: DiskFile> Scanner<'a, F> {
    pub(crate) fn new(
        file: &'a WalFile<F>,
        header: &FileHeader,
        window: &'a mut Window,
        durable_to: Option<u64>,
    ) -> Self {
        Self {
            file,
            generation: header.generation,
            window,
            durable_to,
            found: Scan::new(header),
        }
    }

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

    /// Takes the group at the present end, if one is there.
    pub(crate) fn place(&mut self) -> Result<Place, WalOpenError> {
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
        let taken = match self.take_frames(&header)? {
            Frames::Whole => true,
            Frames::Marred(bad) => self.take_marred(at, bad)?,
            Frames::Unknown => false,
        };
        if !taken {
            self.found.changes.truncate(known);
            return Ok(Place::Begun(header.span()));
        }
        self.found.oldest = self.found.oldest.max(header.oldest);
        self.found.next_sequence += 1;
        self.found.end = at + header.span();
        self.found.last_group = Some((at, self.found.end));
        Ok(Place::Group)
    }

    /// Takes note of bad payloads of the group at `at`, if that was durable; otherwise it is a torn
    /// one.
    fn take_marred(
        &mut self,
        at: u64,
        bad: Vec<(Change, &'static str)>,
    ) -> Result<bool, WalOpenError> {
        let durable_to = match self.durable_to {
            Some(durable_to) => Some(durable_to),
            None => self.witness(at)?,
        };
        let Some(durable_to) = durable_to else {
            return Ok(false);
        };
        let file = &self.file.path;
        let bad = bad.into_iter().map(|(change, what)| BadFrame {
            place: BadPlace {
                file: file.clone(),
                offset: change.location.offset,
                group: Some(change.group),
                what,
            },
            change,
            durable_to,
        });
        self.found.bad.extend(bad);
        Ok(true)
    }

    /// Reads the frames of a group.
    fn take_frames(&mut self, header: &GroupHeader) -> Result<Frames, WalOpenError> {
        let mut at = self.found.end + HEADER_LEN as u64;
        let end = at + u64::from(header.body_len);
        if end > self.file.len {
            return Ok(Frames::Unknown);
        }
        let generation = self.generation;
        let mut heads = crc32fast::Hasher::new();
        let mut bad = Vec::new();
        for _ in 0..header.frames {
            let bytes = self.get(at, FRAME_HEAD_LEN)?;
            heads.update(bytes);
            let Some((head, crc, mut check)) = FrameHead::parse(bytes, generation) else {
                return Ok(Frames::Unknown);
            };
            let location = Location {
                generation,
                offset: at,
                len: head.len,
            };
            at += location.frame_len();
            if at > end {
                return Ok(Frames::Unknown);
            }
            let mut payload_at = location.offset + FRAME_HEAD_LEN as u64;
            let keep = matches!(head.kind, FrameKind::Purge | FrameKind::SetState);
            let mut value = Vec::new();
            while payload_at < at {
                let rest = usize::try_from(at - payload_at).unwrap_or(usize::MAX);
                let part = self.get(payload_at, rest)?;
                if part.is_empty() {
                    return Ok(Frames::Unknown);
                }
                check.update(part);
                if keep {
                    value.extend_from_slice(part);
                }
                payload_at += part.len() as u64;
            }
            let change = Change {
                group: GroupId(head.group),
                kind: head.kind,
                slot: head.slot,
                index: head.index,
                location,
                value: Bytes::from(value),
            };
            if !check.matches(crc) {
                if head.len == 0 {
                    // Its head alone is what its checksum covers: nothing of it is known.
                    return Ok(Frames::Unknown);
                }
                let mut change = change.clone();
                change.value = Bytes::new();
                bad.push((change, bad_payload(head.kind)));
            }
            self.found.changes.push(change);
        }
        if at != end || heads.finalize() != header.heads_crc {
            return Ok(Frames::Unknown);
        }
        Ok(if bad.is_empty() {
            Frames::Whole
        } else {
            Frames::Marred(bad)
        })
    }

    /// Looks behind a bad group for one that says that everything before it was durable. A group
    /// is written only when the one before it is synced, so a power loss alone leaves none.
    fn witness(&mut self, bad: u64) -> Result<Option<u64>, WalOpenError> {
        mutant!(TruncatesDamage => { return Ok(None); });
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

/// What is wrong with a frame whose payload does not match its checksum.
fn bad_payload(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Append | FrameKind::Relocate => "an entry does not match its checksum",
        FrameKind::SetState => "a vote or another state does not match its checksum",
        FrameKind::Purge => "a purge point does not match its checksum",
        FrameKind::Truncate | FrameKind::Forget => "a frame does not match its checksum",
    }
}
