//! Reading entries back by position, each one verified.

#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_env::DiskFile;

use crate::file::WalFile;
use crate::frame::{FRAME_HEAD_LEN, FrameHead, FrameKind};
use crate::index::{Index, Location};
use crate::{GroupId, LogIndex, WalReadError};

/// The most bytes fetched by one call of the file system, unless one frame is larger.
const RUN_BYTES: u64 = 4 << 20;

/// Entries of one group that lie one behind the other in one file. Holds the file, so that it is
/// not reused while it is read.
pub(crate) struct Run<F> {
    file: Arc<WalFile<F>>,
    group: GroupId,
    first: u64,
    entries: Vec<Location>,
}

/// Finds the consecutive entries from `from`, fewer than `max_bytes` of payload but for the first.
pub(crate) fn plan<F>(
    index: &Index<F>,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    max_bytes: usize,
) -> Vec<Run<F>> {
    let mut runs: Vec<Run<F>> = Vec::new();
    let Some(entries) = index.groups.get(&group) else {
        return runs;
    };
    let mut bytes = 0_u64;
    for at in from.0..to.0 {
        let Some(location) = entries.get(at) else {
            break;
        };
        bytes += u64::from(location.len);
        if !runs.is_empty() && bytes > max_bytes as u64 {
            break;
        }
        if let Some(run) = runs.last_mut().filter(|run| run.continues_at(&location)) {
            run.entries.push(location);
            continue;
        }
        let Some(used) = index.files.get(&location.generation) else {
            break;
        };
        let file = Arc::clone(&used.file);
        runs.push(Run {
            file,
            group,
            first: at,
            entries: vec![location],
        });
    }
    runs
}

impl<F> Run<F> {
    fn continues_at(&self, next: &Location) -> bool {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            return false;
        };
        last.generation == next.generation
            && last.offset + last.frame_len() == next.offset
            && next.offset + next.frame_len() - first.offset <= RUN_BYTES
    }
}

impl<F: DiskFile> Run<F> {
    /// Reads and verifies the entries.
    pub(crate) fn read(&self, entries: &mut Vec<(LogIndex, Bytes)>) -> Result<(), WalReadError> {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            return Ok(());
        };
        let len = last.offset + last.frame_len() - first.offset;
        let mut buffer = BytesMut::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
        self.file
            .file
            .read_exact_at(&mut buffer, first.offset)
            .map_err(|source| WalReadError::Io {
                file: self.file.path.clone(),
                offset: first.offset,
                source,
            })?;
        let mut rest = buffer.freeze();
        for (index, location) in (self.first..).zip(&self.entries) {
            let frame_len = usize::try_from(location.frame_len()).unwrap_or(usize::MAX);
            let mut frame = rest.split_to(frame_len.min(rest.len()));
            if !is_entry(&frame, self.group, index, location) {
                return Err(WalReadError::Damaged {
                    file: self.file.path.clone(),
                    offset: location.offset,
                    group: self.group,
                    index: LogIndex(index),
                });
            }
            entries.push((LogIndex(index), frame.split_off(FRAME_HEAD_LEN)));
        }
        Ok(())
    }
}

fn is_entry(frame: &[u8], group: GroupId, index: u64, location: &Location) -> bool {
    let Some((head, crc, mut check)) = FrameHead::parse(frame, location.generation) else {
        return false;
    };
    let Some(payload) = frame.get(FRAME_HEAD_LEN..) else {
        return false;
    };
    check.update(payload);
    check.matches(crc)
        && matches!(head.kind, FrameKind::Append | FrameKind::Relocate)
        && head.group == group.0
        && head.index == index
        && head.len == location.len
}
