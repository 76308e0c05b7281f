//! Finding the first record at or after a timestamp: time index, batch headers, then inside the
//! batch.

use bytes::Bytes;
use highwater_env::{Disk, DiskFile};
use highwater_proto::{Offset, TimestampMs};

use crate::decode::first_record_from;
use crate::error::ReadError;
use crate::reader::PartitionReader;
use crate::scan::{FoundBatch, ScanError, Scanner};
use crate::segment::Segment;

/// What a walk over the segments came to.
enum Looked {
    Found(Option<(Offset, TimestampMs)>),
    /// Compaction replaced a segment meanwhile: look again.
    Replaced,
}

impl<D: Disk> PartitionReader<D> {
    /// The first record (by offset) below `end` whose timestamp is `timestamp` or later, with its
    /// timestamp; `None` if there is none.
    ///
    /// # Errors
    /// Whatever is wrong with the files, or a batch that cannot be decoded.
    pub fn find_by_timestamp(
        &self,
        timestamp: TimestampMs,
        end: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        loop {
            match self.look_up(timestamp, end)? {
                Looked::Found(found) => return Ok(found),
                Looked::Replaced => {}
            }
        }
    }

    fn look_up(&self, timestamp: TimestampMs, end: Offset) -> Result<Looked, ReadError> {
        let (log_start, segments) = {
            let view = self.shared.view.read();
            (
                view.log_start,
                view.segments.values().cloned().collect::<Vec<_>>(),
            )
        };
        for segment in segments {
            if segment.name.base >= end {
                break;
            }
            if segment
                .extent()
                .max_timestamp
                .is_none_or(|max| max < timestamp)
            {
                continue;
            }
            match self.find_in_segment(&segment, timestamp, (log_start, end)) {
                Ok(None) => {}
                Ok(found) => return Ok(Looked::Found(found)),
                Err(_) if self.was_replaced(&segment) => return Ok(Looked::Replaced),
                // Trimmed since we looked: what it held no longer counts.
                Err(error) => match self.explain(&segment, error) {
                    ReadError::BelowStart { .. } => {}
                    other => return Err(other),
                },
            }
        }
        Ok(Looked::Found(None))
    }

    fn find_in_segment(
        &self,
        segment: &Segment,
        timestamp: TimestampMs,
        (log_start, end): (Offset, Offset),
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let (files, interval) = (&*self.shared.files, self.shared.config.index_interval_bytes);
        let extent = segment.extent();
        let start = segment.floor_of_time(files, interval, timestamp)?;
        let file = segment.file(files, &extent)?;
        let mut scanner = Scanner::new(&file.file, start, extent.len, segment.name.base.0);
        while let Some(found) = scanner.next_batch().map_err(|e| segment.scan_error(e))? {
            if found.head.base_offset >= end.0 {
                break;
            }
            if found.head.max_timestamp < timestamp.0 || found.head.next_offset <= log_start.0 {
                continue;
            }
            let batch = read_batch(&file.file, &found).map_err(|e| segment.scan_error(e))?;
            let hit = first_record_from(batch, timestamp, &(log_start..end)).map_err(|source| {
                ReadError::Undecodable {
                    partition: self.partition(),
                    offset: Offset(found.head.base_offset),
                    source,
                }
            })?;
            if hit.is_some() {
                return Ok(hit);
            }
        }
        Ok(None)
    }
}

/// The batch's bytes. Its length was checked against the segment's.
fn read_batch<F: DiskFile>(file: &F, found: &FoundBatch) -> Result<Bytes, ScanError> {
    let too_long = ScanError::Bad {
        position: found.position,
        reason: "a batch is too long",
    };
    let len = usize::try_from(found.head.total_len).map_err(|_| too_long)?;
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, found.position)
        .map_err(ScanError::Io)?;
    Ok(buffer.into())
}
