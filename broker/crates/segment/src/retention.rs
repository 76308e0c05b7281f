//! What retention may take from a partition's log: whole segments, the oldest first.
//!
//! Age goes by append times. A leader whose clock is behind stamps appends too early: a segment
//! therefore counts as at least as young as every one before it, and as every append in it. And a
//! leader stamps with the time that most brokers have, once it has heard it.

use highwater_env::Disk;
use highwater_proto::{Offset, TimestampMs};

use crate::reader::PartitionReader;

/// What is to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose last append was before this may go, the one that grows included. `None`:
    /// none goes for its age.
    pub keep_from: Option<TimestampMs>,
    /// The oldest segments go as long as this many bytes remain, never the last one. `None`: none
    /// goes for the log's size.
    pub keep_bytes: Option<u64>,
}

/// What counts of one segment.
#[derive(Debug, Clone, Copy)]
struct Aged {
    next_offset: Offset,
    bytes: u64,
    last_append: TimestampMs,
}

impl<D: Disk> PartitionReader<D> {
    /// The first offset that has to stay, if that is above the log's start.
    #[must_use]
    pub fn retention_cut(&self, retention: &Retention) -> Option<Offset> {
        let view = self.shared.view.read();
        let aged = view.segments.values().filter_map(|segment| {
            segment.inspect(|tail| {
                (tail.len > 0).then_some(Aged {
                    next_offset: tail.next_offset,
                    bytes: tail.len,
                    last_append: tail.last_append_time,
                })
            })
        });
        let aged: Vec<Aged> = aged.collect();
        cut(&aged, retention).filter(|cut| *cut > view.log_start)
    }
}

/// The end of the last segment that may go.
fn cut(segments: &[Aged], retention: &Retention) -> Option<Offset> {
    let mut newest = TimestampMs(i64::MIN);
    let mut left: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut cut = None;
    for (at, segment) in segments.iter().enumerate() {
        newest = newest.max(segment.last_append);
        left -= segment.bytes;
        let is_last = at + 1 == segments.len();
        let too_old = retention.keep_from.is_some_and(|from| newest < from);
        let too_much = !is_last && retention.keep_bytes.is_some_and(|bytes| left >= bytes);
        if !too_old && !too_much {
            break;
        }
        cut = Some(segment.next_offset);
    }
    cut
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
