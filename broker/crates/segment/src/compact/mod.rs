//! Compaction of one partition: of the records below an offset the latest of each key is kept.
//!
//! What it leaves is a function of what was appended and of the [`CompactionTask`], which the shard's
//! log has decided: whichever replica does it, whenever, in however many steps, and whatever earlier
//! compactions have left of the same records. Only sealed segments are read. The result is written
//! beside them, made durable, and takes their place in the log at once; the old files go when no
//! durable manifest names them. A crash before that leaves the old files and the task.
//!
//! Memory: a table of keys of a fixed size. When it is full, what was read so far is compacted into
//! files of its own, which are the beginning of the next round; nobody else sees them.

mod adopt;
mod input;
mod keys;
mod output;
mod replace;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_env::{Disk, is_full};
use highwater_mutant::mutant;
use highwater_proto::Offset;
use highwater_proto::batch::{DecodeLimits, Record, RecordBatch, Retained};

use crate::error::ReadError;
use crate::fault::SegmentFault;
use crate::file_cache::FileError;
use crate::layout::SegmentName;
use crate::manifest::Compacted;
use crate::reader::PartitionReader;
use crate::segment::Segment;
use input::Input;
use keys::Keys;
use output::Output;

pub use adopt::{AdoptError, Adopted, Adoption};
pub use replace::{Pin, PinnedPiece, Replaced, Replacement};

/// What the shard's log has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionTask {
    /// Which compaction it is; they count up.
    pub generation: u64,
    /// Records below are compacted. A segment ends here.
    pub upto: Offset,
    /// Records below are dropped: the log's start when it was decided.
    pub floor: Offset,
    /// Records without value below are dropped.
    pub tombstones_below: Offset,
    /// What is written is cut into segments of this size, in bytes; 0: not for its size.
    pub segment_bytes: u64,
}

/// What may differ from broker to broker: nothing here decides what is left.
#[derive(Debug, Clone, Copy)]
pub struct CompactionOptions {
    /// Memory for keys, in bytes. One batch may exceed it.
    pub key_bytes: usize,
    /// A secret that keys are hashed with.
    pub secret: [u8; 16],
}

/// Compaction did not go on. What it wrote is to be discarded; the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// What is stored cannot be read, or is not what was written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No room for what is to be written.
    #[error("no space left for {path}", path = path.display())]
    StorageFull {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("writing {path} failed: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A sync failed: the process has to stop.
    #[error(transparent)]
    Fault(#[from] Arc<SegmentFault>),
}

impl CompactError {
    fn write(name: &SegmentName, source: io::Error) -> Self {
        let path = name.log_path();
        if is_full(&source) {
            Self::StorageFull { path }
        } else {
            Self::Io { path, source }
        }
    }
}

impl From<FileError> for CompactError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { path, source, .. } if is_full(&source) => Self::StorageFull { path },
            FileError::Fault(fault) => Self::Fault(fault),
            other => Self::Read(other.into()),
        }
    }
}

/// Whether a compaction can begin.
pub enum Begun<D: Disk> {
    /// It, or a later one, was done.
    Done,
    /// Not everything below its end is written and sealed yet.
    NotYet,
    /// A segment reaches over its end.
    Unaligned,
    /// Go on with [`Compaction::step`].
    Ready(Box<Compaction<D>>),
}

/// What a compaction has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Bytes read, each as often as it was.
    pub read: u64,
    /// Bytes written, files of earlier rounds included.
    pub written: u64,
    /// Bytes before and after.
    pub before: u64,
    /// Bytes of the result.
    pub after: u64,
    /// How often the table of keys was filled.
    pub rounds: u32,
}

/// Where a compaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionProgress {
    /// So many bytes were read and written.
    Some(u64),
    /// All is done but for taking the place of the old segments: [`Compaction::finish`].
    Complete,
}

/// A segment, and the first offset of it that counts: what lies below came with an earlier round.
#[derive(Clone)]
struct Source {
    segment: Arc<Segment>,
    from: Offset,
}

/// One compaction, step by step, so that the caller sets the pace.
pub struct Compaction<D: Disk> {
    reader: PartitionReader<D>,
    task: CompactionTask,
    resets: u64,
    /// Whose place the result takes.
    replaced: Vec<Arc<Segment>>,
    sources: Vec<Source>,
    /// Below, each key is there once.
    unique_below: Offset,
    /// The keys of `[unique_below, window)` are known.
    window: Offset,
    keys: Keys,
    copying: bool,
    /// The source that is read, and where.
    at: usize,
    input: Option<Input<D>>,
    output: Output<D>,
    /// Files of the round before.
    earlier: Vec<Arc<Segment>>,
    versions: Vec<u64>,
    result: Option<Vec<Arc<Segment>>>,
    stats: CompactionStats,
}

impl<D: Disk> PartitionReader<D> {
    /// Begins a compaction. Only one of a partition may run at a time.
    #[must_use]
    pub fn compact(&self, task: CompactionTask, options: &CompactionOptions) -> Begun<D> {
        let view = self.shared.view.read();
        let done = view.compacted;
        let is_same = done.generation == task.generation && done.upto == task.upto;
        if is_same || done.generation > task.generation {
            return Begun::Done;
        }
        // Whoever copies it now would hold up the result.
        if self.next_offset() < task.upto || self.shared.is_pinned() {
            return Begun::NotYet;
        }
        let below = view
            .segments
            .range(..task.upto.0)
            .map(|(_, s)| Arc::clone(s));
        let segments: Vec<_> = below.collect();
        let (resets, unique_below) = (view.resets, done.upto.max(task.floor));
        drop(view);
        for segment in &segments {
            let extent = segment.extent();
            if extent.next_offset > task.upto {
                return if extent.sealed {
                    Begun::Unaligned
                } else {
                    Begun::NotYet
                };
            }
            if !extent.sealed {
                return Begun::NotYet;
            }
        }
        let version = self.shared.versions.take();
        let records = task.upto.0.saturating_sub(unique_below.0);
        let from = Offset(0);
        let source = |segment: &Arc<Segment>| Source {
            segment: Arc::clone(segment),
            from,
        };
        Begun::Ready(Box::new(Compaction {
            sources: segments.iter().map(source).collect(),
            stats: CompactionStats {
                before: segments.iter().map(|s| s.extent().len).sum(),
                rounds: 1,
                ..CompactionStats::default()
            },
            replaced: segments,
            reader: self.clone(),
            task,
            resets,
            unique_below,
            window: task.upto,
            keys: Keys::new(options.secret, records, options.key_bytes),
            copying: false,
            at: 0,
            input: None,
            output: Output::new(&self.shared, version, task.segment_bytes),
            earlier: Vec::new(),
            versions: vec![version],
            result: None,
        }))
    }
    /// How far the log is compacted.
    #[must_use]
    pub fn compacted(&self) -> Compacted {
        self.shared.view.read().compacted
    }
}

impl<D: Disk> Compaction<D> {
    /// Goes on until about `max_bytes` were read. Blocks on the disk.
    ///
    /// # Errors
    /// [`CompactError`]: then [`Self::discard`].
    pub fn step(&mut self, max_bytes: u64) -> Result<CompactionProgress, CompactError> {
        let (read, written) = (self.stats.read, self.stats.written);
        while self.stats.read - read < max_bytes {
            if self.result.is_some() {
                return Ok(CompactionProgress::Complete);
            }
            let Some(batch) = self.next_batch()? else {
                continue;
            };
            if self.copying {
                self.copy(&batch)?;
            } else {
                self.learn(&batch);
            }
        }
        let moved = (self.stats.read - read) + (self.stats.written - written);
        Ok(CompactionProgress::Some(moved))
    }
    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> CompactionStats {
        self.stats
    }

    /// The next batch of this walk over the sources; `None` between two sources or walks.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, CompactError> {
        if self.input.is_none() {
            let Some(source) = self.sources.get(self.at) else {
                self.end_walk()?;
                return Ok(None);
            };
            let extent = source.segment.extent();
            let is_beyond = self.copying && source.segment.name.base >= self.window;
            // A full table: what comes is learnt in the next round.
            let is_full = !self.copying && self.window < self.task.upto;
            let is_known = !self.copying && extent.next_offset <= self.unique_below;
            if is_beyond || is_full {
                self.end_walk()?;
                return Ok(None);
            }
            if is_known {
                self.at += 1;
                return Ok(None);
            }
            let Some(wanted) = source.segment.to_manifest() else {
                self.at += 1;
                return Ok(None);
            };
            let disk = self.reader.shared.files.disk();
            self.input =
                Some(Input::open(disk, &source.segment, wanted).map_err(|e| self.read_error(e))?);
        }
        let Some(input) = &mut self.input else {
            return Ok(None);
        };
        match input.next_batch() {
            Ok(Some(batch)) => {
                self.stats.read += batch.bytes().len() as u64;
                Ok(Some(batch))
            }
            Ok(None) => {
                self.input = None;
                self.at += 1;
                Ok(None)
            }
            Err(error) => Err(self.read_error(error).into()),
        }
    }
    /// A source that was trimmed meanwhile may be gone.
    fn read_error(&self, error: ReadError) -> ReadError {
        match self.sources.get(self.at) {
            Some(source)
                if self
                    .replaced
                    .iter()
                    .any(|s| Arc::ptr_eq(s, &source.segment)) =>
            {
                self.reader.explain(&source.segment, error)
            }
            _ => error,
        }
    }

    /// Notes the keys of a batch.
    fn learn(&mut self, batch: &RecordBatch) {
        let header = batch.header();
        let counts = self.sources.get(self.at).map_or(Offset(0), |s| s.from);
        let is_known = header.next_offset() <= self.unique_below.max(counts);
        if is_known || header.base_offset >= self.window {
            return;
        }
        if !self.keys.has_room(header.record_count) {
            self.window = header.base_offset;
            return;
        }
        // What cannot be decoded is kept as it is.
        let Ok(records) = batch.records(&DecodeLimits::default()) else {
            return;
        };
        let Ok(records) = records.collect::<Result<Vec<Record>, _>>() else {
            return;
        };
        for record in records {
            if let Some(key) = &record.key
                && record.offset >= self.unique_below
            {
                self.keys.note(key, record.offset);
            }
        }
    }
    /// Writes what is left of a batch.
    fn copy(&mut self, batch: &RecordBatch) -> Result<(), CompactError> {
        let header = *batch.header();
        let counts = self.sources.get(self.at).map_or(Offset(0), |s| s.from);
        if header.next_offset() <= counts || header.base_offset >= self.window {
            return Ok(());
        }
        let CompactionTask {
            floor,
            tombstones_below,
            ..
        } = self.task;
        let keys = &self.keys;
        let is_kept = |record: &Record| {
            if record.offset < floor {
                return false;
            }
            // Written before the topic was compacted: nothing supersedes it.
            let Some(key) = &record.key else {
                return true;
            };
            let is_latest = keys.newest(key).is_none_or(|newest| {
                mutant!(CompactsTheLatest => newest > record.offset; else newest <= record.offset)
            });
            is_latest && (record.value.is_some() || record.offset >= tombstones_below)
        };
        let retained = match batch.retain(&DecodeLimits::default(), is_kept) {
            Ok(retained) => retained,
            // Not to be decoded: nobody can say what is in it.
            Err(_) if header.next_offset() <= floor => Retained::Nothing,
            Err(_) => Retained::All,
        };
        let bytes = match retained {
            Retained::Nothing => return Ok(()),
            Retained::All => batch.bytes().clone(),
            Retained::Some(bytes) => bytes,
        };
        let left = highwater_proto::batch::BatchHeader::parse(&bytes).unwrap_or(header);
        let appended = self
            .input
            .as_ref()
            .map(|input| input.wanted().last_append_time);
        self.output
            .push(&left, &bytes, appended.unwrap_or(left.max_timestamp))?;
        self.stats.written += bytes.len() as u64;
        Ok(())
    }

    /// All sources were read once: for their keys, or to be copied.
    fn end_walk(&mut self) -> Result<(), CompactError> {
        self.at = 0;
        if !self.copying {
            self.copying = true;
            return Ok(());
        }
        let made = self.output.finish()?;
        let version = self.reader.shared.versions.take();
        self.versions.push(version);
        self.output = Output::new(&self.reader.shared, version, self.task.segment_bytes);
        let earlier = std::mem::take(&mut self.earlier);
        replace::remove(&self.reader.shared, earlier.iter().map(|s| &s.name));
        if self.window == self.task.upto {
            self.stats.after = made.iter().map(|segment| segment.extent().len).sum();
            self.result = Some(made);
            return Ok(());
        }
        self.begin_round(made);
        Ok(())
    }
    /// What was made so far is where the next round begins.
    fn begin_round(&mut self, made: Vec<Arc<Segment>>) {
        let window = self.window;
        let made_before = made.iter().map(|segment| Source {
            segment: Arc::clone(segment),
            from: Offset(0),
        });
        let rest = self.replaced.iter().map(|segment| Source {
            segment: Arc::clone(segment),
            from: window,
        });
        let rest = rest.filter(|source| source.segment.extent().next_offset > window);
        self.sources = made_before.chain(rest).collect();
        self.earlier = made;
        self.unique_below = window.max(self.unique_below);
        self.window = self.task.upto;
        self.keys.clear();
        self.copying = false;
        self.stats.rounds += 1;
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
