//! The copy of a partition on its way into another shard's log: ranges pulled from a replica of the shard
//! that it leaves, cut into entries.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_env::Env;
use highwater_mutant::mutant;
use highwater_proto::batch::split_batches;
use highwater_proto::internal::LeavingPartitionResponse;
use highwater_proto::{NodeId, Offset, ShardId, TimestampMs, TopicPartition};
use highwater_segment::Compacted;
use highwater_shard::ImportedBatch;

use super::pull::{Piece, Range, SnapshotSource, Taken};

/// An entry is closed when it holds this much.
const ENTRY_BYTES: usize = 1 << 20;

/// Where a partition is copied from, as it was when somebody looked.
#[derive(Debug)]
pub struct Source {
    node: NodeId,
    shard: ShardId,
    tp: TopicPartition,
    leaving: LeavingPartitionResponse,
}

impl Source {
    /// The replica at `node`.
    #[must_use]
    pub fn new(
        node: NodeId,
        shard: ShardId,
        tp: TopicPartition,
        leaving: LeavingPartitionResponse,
    ) -> Self {
        Self {
            node,
            shard,
            tp,
            leaving,
        }
    }
    /// Where the log ended.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.leaving.high_watermark)
    }

    /// What is compacted there, and stays as it is until the partition has moved.
    fn compacted(&self) -> Compacted {
        Compacted {
            generation: self.leaving.generation,
            upto: Offset(self.leaving.compacted_upto),
        }
    }

    /// When a batch (its base, and where the batch before it ends) counts as appended, and whether a segment
    /// begins with it. Retention goes by these times, and must not take a batch for older than it is: it counts as
    /// appended with the last one of its segment, and one that was not written to a file yet when it was
    /// looked at as appended then. A segment begins where compaction ends, too, whichever segments there were
    /// when it was looked at: it must not reach over that.
    fn place(&self, (base, before): (Offset, Offset)) -> (TimestampMs, bool) {
        let upto = self.compacted().upto;
        let begins = before <= upto && upto <= base;
        let segments = &self.leaving.segments;
        let after = segments.partition_point(|segment| segment.base_offset <= base.0);
        let holds = after.checked_sub(1).and_then(|at| segments.get(at));
        match holds.filter(|segment| base.0 < segment.next_offset) {
            Some(segment) => (
                TimestampMs(segment.appended_ms),
                begins || before.0 <= segment.base_offset,
            ),
            None => (TimestampMs(self.leaving.now_ms), begins),
        }
    }

    /// Whether a piece, wanted from `from` on, is of the state that all of the copy is made from. Behind the
    /// end of compaction every replica has the same.
    ///
    /// # Errors
    /// Both states, when it is not.
    fn check_state(&self, piece: &Piece, from: Offset) -> io::Result<()> {
        let (wanted, has) = (self.compacted(), piece.compacted());
        let is_behind = from >= wanted.upto && has.upto <= wanted.upto;
        if mutant!(CopiesUnheld => true; else has == wanted || is_behind) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "broker {} has {} compacted up to {} ({}), and is to up to {} ({}) first",
            self.node, self.tp, has.upto, has.generation, wanted.upto, wanted.generation
        )))
    }

    /// The batches of a piece that end at `from` or later, and where the next piece begins. Nothing may be
    /// missing between them that is not compacted: the log that adopts the copy sees no more of it than
    /// where it ends.
    fn imported(&self, piece: &Piece, from: Offset) -> io::Result<(Vec<ImportedBatch>, Offset)> {
        self.check_state(piece, from)?;
        let upto = self.compacted().upto;
        let gaps_below = mutant!(CopiesUnheld => upto.max(piece.compacted().upto); else upto);
        let follows = |end: Offset, next: Offset| match next <= end.max(gaps_below) {
            true => Ok(()),
            false => {
                let text = format!("{} has nothing from {end} to {next}", self.tp);
                Err(io::Error::other(text))
            }
        };
        let (mut imported, mut end) = (Vec::new(), from);
        for batch in split_batches(piece.batches.clone()) {
            let batch = batch.map_err(io::Error::other)?;
            let header = batch.header();
            if header.last_offset() < from {
                continue;
            }
            follows(end, header.base_offset)?;
            let (append_time, begins_segment) = self.place((header.base_offset, end));
            end = header.next_offset();
            imported.push(ImportedBatch {
                append_time,
                begins_segment,
                batch: batch.bytes().clone(),
            });
        }
        let after = piece.after(end);
        follows(end, after)?;
        Ok((imported, after))
    }
}

/// Pulls what the source has from `from` on and hands it over entry by entry, each after the one before
/// it is applied. Returns how many bytes that was.
///
/// # Errors
/// In one line: of the source, of the log, or of `import`. What was handed over is there.
pub async fn pull<E, F, T>(
    snapshots: &SnapshotSource<E>,
    source: &Source,
    from: Offset,
    import: F,
) -> Result<u64, String>
where
    E: Env,
    F: Fn(Vec<ImportedBatch>) -> T,
    T: Future<Output = Result<(), String>>,
{
    let from = from.max(Offset(source.leaving.log_start_offset));
    let range = Range {
        shard: source.shard,
        tp: source.tp,
        from,
        end: source.end(),
    };
    if range.from >= range.end {
        return Ok(0);
    }
    let (bytes, next) = (AtomicU64::new(0), AtomicU64::new(from.0));
    let (counted, reached, import) = (&bytes, &next, &import);
    let take = |piece: Piece| async move {
        let (batches, end) = source.imported(&piece, Offset(reached.load(Ordering::Relaxed)))?;
        reached.store(end.0, Ordering::Relaxed);
        for entry in entries(batches) {
            let len: usize = entry.iter().map(|imported| imported.batch.len()).sum();
            import(entry).await.map_err(io::Error::other)?;
            counted.fetch_add(len as u64, Ordering::Relaxed);
        }
        Ok(Taken::Upto(end))
    };
    let pulled = snapshots.pull(source.node, range, take).await;
    pulled.map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

/// Batches cut into entries, none larger than it has to be.
fn entries(batches: Vec<ImportedBatch>) -> Vec<Vec<ImportedBatch>> {
    let mut entries: Vec<Vec<ImportedBatch>> = Vec::new();
    let mut bytes = 0;
    for imported in batches {
        let len = imported.batch.len();
        match entries.last_mut() {
            Some(last) if bytes + len <= ENTRY_BYTES => {
                bytes += len;
                last.push(imported);
            }
            _ => {
                bytes = len;
                entries.push(vec![imported]);
            }
        }
    }
    entries
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
