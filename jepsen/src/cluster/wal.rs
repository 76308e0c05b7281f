//! What lies where in a broker's write-ahead log, by `broker/crates/wal/FORMAT.md`: as much as it takes to hit what
//! the next start reads, and what it must not take for a torn tail.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

const HEADER: usize = 64;
const HEAD: usize = 24;
const FIRST_GROUP: usize = 4096;
const IDLE: u32 = 1;
/// Kinds of frames, and the slot of a vote.
const APPEND: u8 = 1;
const AGAIN: u8 = 2;
const STATE: u8 = 5;
const FORGET: u8 = 6;
const VOTE: u8 = 0;
/// How many files behind the newest are read: the log may be long.
const OLDER: usize = 2;

/// What may be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The last vote of a group.
    Vote,
    /// An entry in the middle of what is there.
    Entry,
    /// The last thing that is known durable.
    Last,
    /// What says which frame it is, of one in the middle.
    FrameHead,
}

/// A frame of a group that something behind it bears witness of: it is durable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Frame {
    /// The name of its file.
    pub file: String,
    /// Where its head lies, in bytes.
    pub at: u64,
    /// Length of its payload, in bytes.
    pub bytes: u32,
    /// Its kind, by the format.
    pub kind: u8,
    /// Its slot, of a state.
    pub slot: u8,
    /// The group that it belongs to: a shard, or the metadata.
    pub group: u32,
    /// The entry's place, of an entry.
    pub index: u64,
}

impl Frame {
    const fn holds_entry(&self) -> bool {
        matches!(self.kind, APPEND | AGAIN) && self.bytes > 0
    }
}

/// A byte of the log.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Hit {
    /// What it is a part of.
    pub target: Target,
    /// In which frame.
    pub frame: Frame,
    /// Which byte of the file.
    pub offset: u64,
}

/// All durable frames of the newest files of a log that nobody has open, the oldest first.
///
/// # Errors
/// When a file cannot be read.
pub fn frames(directory: &Path) -> anyhow::Result<Vec<Frame>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).context("the log's directory")? {
        let path = entry?.path();
        let mut start = [0; HEADER];
        let whole = File::open(&path)?.read_exact(&mut start).is_ok();
        if let Some(header) = FileHeader::parse(&start).filter(|_| whole) {
            files.insert(header.generation, (path, header));
        }
    }
    let Some((newest, (path, header))) = files.pop_last() else {
        return Ok(Vec::new());
    };
    let scanned = scan(&path, newest, None)?;
    let oldest = scanned.oldest.max(header.oldest);
    let mut parts = vec![scanned.frames];
    let mut end = header.previous_end;
    for generation in (oldest..newest).rev().take(OLDER) {
        let Some((path, header)) = files.remove(&generation) else {
            break;
        };
        parts.push(scan(&path, generation, Some(end))?.frames);
        end = header.previous_end;
    }
    Ok(parts.into_iter().rev().flatten().collect())
}

/// A byte of a frame, by chance; nothing: there is no such frame.
#[must_use]
pub fn choose(frames: &[Frame], target: Target, pick: u64) -> Option<Hit> {
    let at = |count: usize| usize::try_from(pick % (count.max(1) as u64)).unwrap_or(0);
    let middle = |of: Vec<&Frame>| {
        let third = of.len() / 3;
        of.get(third + at(third)).copied().cloned()
    };
    let frame = match target {
        Target::Vote => {
            let votes = last_votes(frames);
            votes.get(at(votes.len())).copied().cloned()
        }
        Target::Entry => middle(frames.iter().filter(|frame| frame.holds_entry()).collect()),
        Target::Last => frames.iter().rfind(|frame| frame.bytes > 0).cloned(),
        Target::FrameHead => middle(frames.iter().collect()),
    }?;
    let (from, bytes) = match target {
        Target::FrameHead => (frame.at, HEAD as u64),
        _ => (frame.at + HEAD as u64, u64::from(frame.bytes)),
    };
    Some(Hit {
        target,
        offset: from + (pick >> 16) % bytes,
        frame,
    })
}

/// The vote that counts of each group.
fn last_votes(frames: &[Frame]) -> Vec<&Frame> {
    let mut votes = BTreeMap::new();
    for frame in frames {
        if frame.kind == STATE && frame.slot == VOTE && frame.bytes > 0 {
            votes.insert(frame.group, frame);
        } else if frame.kind == FORGET {
            votes.remove(&frame.group);
        }
    }
    votes.into_values().collect()
}

struct FileHeader {
    generation: u64,
    previous_end: u64,
    oldest: u64,
}

impl FileHeader {
    /// Nothing of a file that was never used.
    fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let mut zeroed = *bytes;
        zeroed[12..16].fill(0);
        let whole =
            bytes.starts_with(b"HWWALOG\n") && crc32fast::hash(&zeroed) == u32_at(bytes, 12)?;
        let generation = u64_at(bytes, 16)?;
        (whole && generation > 0).then_some(Self {
            generation,
            previous_end: u64_at(bytes, 32)?,
            oldest: u64_at(bytes, 40)?,
        })
    }
}

struct GroupHeader {
    body: usize,
    frames: u32,
    idle: bool,
    durable_to: u64,
    oldest: u64,
}

impl GroupHeader {
    fn parse(file: &[u8], at: usize, generation: u64) -> Option<Self> {
        let bytes = file.get(at..at + HEADER)?;
        let mut check = crc32fast::Hasher::new();
        check.update(&(at as u64).to_be_bytes());
        check.update(bytes.get(8..)?);
        let whole = bytes.starts_with(b"HwG1") && check.finalize() == u32_at(bytes, 4)?;
        (whole && u64_at(bytes, 8)? == generation).then_some(Self {
            body: u32_at(bytes, 24)? as usize,
            frames: u32_at(bytes, 28)?,
            idle: u32_at(bytes, 36)? & IDLE != 0,
            durable_to: u64_at(bytes, 40)?,
            oldest: u64_at(bytes, 48)?,
        })
    }
}

struct Scanned {
    frames: Vec<Frame>,
    oldest: u64,
}

/// The durable groups of a file. `end`: known from the file behind it; of the newest one it has to be found.
fn scan(path: &Path, generation: u64, end: Option<u64>) -> anyhow::Result<Scanned> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut durable_to = end.unwrap_or(0);
    let (mut groups, mut oldest, mut at) = (Vec::new(), 0, FIRST_GROUP);
    while end.is_none_or(|end| (at as u64) < end) {
        let Some(group) = GroupHeader::parse(&file, at, generation) else {
            break;
        };
        durable_to = durable_to.max(group.durable_to);
        oldest = oldest.max(group.oldest);
        if group.idle {
            break;
        }
        groups.push((at, frames_of(&file, &name, at + HEADER, &group)));
        at = (at + HEADER + group.body).next_multiple_of(HEADER);
    }
    let durable = groups
        .into_iter()
        .filter(|(at, _)| (*at as u64) < durable_to);
    Ok(Scanned {
        frames: durable.flat_map(|(_, frames)| frames).collect(),
        oldest,
    })
}

fn frames_of(file: &[u8], name: &str, from: usize, group: &GroupHeader) -> Vec<Frame> {
    let mut at = from;
    let mut frames = Vec::new();
    for _ in 0..group.frames {
        let Some(frame) = frame(file, name, at) else {
            break;
        };
        at += HEAD + frame.bytes as usize;
        frames.push(frame);
    }
    frames
}

fn frame(file: &[u8], name: &str, at: usize) -> Option<Frame> {
    let head = file.get(at..at + HEAD)?;
    Some(Frame {
        file: name.to_owned(),
        at: at as u64,
        bytes: u32_at(head, 12)?,
        kind: *head.get(4)?,
        slot: *head.get(5)?,
        group: u32_at(head, 8)?,
        index: u64_at(head, 16)?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_be_bytes(*field))
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
