//! A replica that is too far behind the retained log: it gets the leader's checkpoint, pulls the
//! ranges it lacks by partition and offset, and goes on from there.
//!
//! Everything this replica has applied is committed, so what it holds of a partition stays; only
//! what lies between its end and the checkpoint's is fetched, and goes behind it. Where that is not
//! enough (the source has compacted what lies here, the partition was elsewhere meanwhile, all that is
//! here has gone there) the whole partition is fetched into a log aside. Whoever sends may die at any
//! time, and another leader may have the log that this replica lacks: until all is here and the new
//! checkpoint durable, nothing that the old state rests on is touched. A crash in between leaves
//! the old checkpoint, and the pull starts again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Disk, Env};
use highwater_proto::batch::{BatchHeader, split_batches};
use highwater_proto::{NodeId, Offset, TimestampMs, TopicPartition};
use highwater_raft::StoredCheckpoint;
use highwater_segment::{AppendBatch, Checkpoint, Compacted, PartitionManifest, ShardSegments};
use highwater_shard::ShardState;

use super::checkpoint::store_error;
use super::machine::ShardMachine;
use super::pull::{Piece, Range, Taken};

/// A checkpoint of another replica of which all is here.
pub struct PreparedShard {
    state: ShardState,
    /// As it will be on the disk.
    checkpoint: Checkpoint,
    /// Where its partitions' logs begin.
    log_starts: Vec<(TopicPartition, Offset)>,
    from: NodeId,
}

impl<E: Env> ShardMachine<E> {
    /// Pulls what is missing of a checkpoint. The state stays as it is, and so does what is read here.
    /// Cancellation-safe: what was pulled aside goes with the next attempt.
    pub(super) async fn pull_all(
        &mut self,
        from: NodeId,
        stored: StoredCheckpoint,
    ) -> io::Result<PreparedShard> {
        let theirs = Checkpoint::decode(&stored.manifest).map_err(io::Error::other)?;
        let state = ShardState::decode_snapshot(&theirs.state).map_err(io::Error::other)?;
        self.segments.give_up_aside().await.map_err(store_error)?;
        let ours = self.segments.freeze().wait().await.map_err(store_error)?;
        let ours: BTreeMap<_, _> = ours.into_iter().collect();
        let mut log_starts = Vec::with_capacity(theirs.partitions.len());
        for (tp, manifest) in &theirs.partitions {
            self.pull(from, *tp, (ours.get(tp), manifest)).await?;
            log_starts.push((*tp, manifest.log_start));
        }
        let mut partitions = self.segments.freeze_aside().await.map_err(store_error)?;
        partitions.retain(|(tp, _)| state.has_partition(*tp));
        let starts: BTreeMap<_, _> = log_starts.iter().copied().collect();
        for (tp, manifest) in &mut partitions {
            manifest.trim(starts.get(tp).copied().unwrap_or_default());
        }
        let checkpoint = Checkpoint {
            raft_meta: stored.raft_meta,
            state: theirs.state,
            partitions,
        };
        Ok(PreparedShard {
            state,
            checkpoint,
            log_starts,
            from,
        })
    }

    /// Makes the checkpoint durable, then replaces the state, and what is read here, by what was pulled.
    /// Both in one go: a checkpoint on the disk whose logs are still aside would lose them to the next
    /// attempt.
    pub(super) async fn take_over(&mut self, prepared: PreparedShard) -> io::Result<()> {
        let PreparedShard {
            state,
            checkpoint,
            log_starts,
            from,
        } = prepared;
        self.files().store_durably(self.id, checkpoint).await?;
        let here = self.views.all().into_iter();
        let gone = here.filter(|tp| !state.has_partition(*tp)).collect();
        let taken = self.segments.take_aside(log_starts, gone).await;
        taken.map_err(store_error)?;
        self.adopt(state);
        // Only a further checkpoint lets go of the files that were here.
        self.context.compactions.replaced.note(self.id);
        tracing::info!(
            shard = self.id.0,
            from = from.0,
            "the log that this replica lacked is gone; took a checkpoint instead"
        );
        Ok(())
    }

    /// Brings one partition's files up to the end of the leader's manifest: behind what is here, or
    /// aside.
    async fn pull(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        (ours, theirs): (Option<&PartitionManifest>, &PartitionManifest),
    ) -> io::Result<()> {
        let here = ours.filter(|ours| ours.arrival == theirs.arrival);
        let end = here.map_or(Offset(0), |ours| ours.next_offset);
        let is_whole = here.is_some() && end >= theirs.next_offset;
        // A log without records is as good as none, and so is one that ends below their start.
        let continues = end > Offset(0) && end >= theirs.log_start;
        if is_whole || (continues && self.pull_from(from, tp, Where::Behind(end), theirs).await?) {
            return Ok(());
        }
        // Nothing here that counts; or it is compacted there beyond the end of what is here: what a record
        // superseded may be here, and that record gone there. So all of it comes from there.
        let begun = self.segments.begin_aside(tp, theirs.arrival).await;
        begun.map_err(store_error)?;
        if theirs.log_start < theirs.next_offset {
            self.pull_from(from, tp, Where::Aside, theirs).await?;
        }
        Ok(())
    }

    /// Pulls up to their end. `false`: nothing was taken, because the source has compacted more than is
    /// held here.
    async fn pull_from(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        target: Where,
        theirs: &PartitionManifest,
    ) -> io::Result<bool> {
        let starts: Starts = theirs
            .segments
            .iter()
            .map(|s| (s.base_offset, s.last_append_time))
            .collect();
        let range = Range {
            shard: self.id,
            tp,
            from: match target {
                Where::Behind(end) => end,
                Where::Aside => theirs.log_start,
            },
            end: theirs.next_offset,
        };
        let context = Arc::clone(&self.context);
        let pulling = tokio::sync::Mutex::new(Pulling {
            segments: &mut self.segments,
            starts,
            range,
            target,
            compacted: Compacted::default(),
            superseded: false,
        });
        let pieces = &pulling;
        let take = |piece: Piece| async move { pieces.lock().await.take(piece).await };
        context.snapshots.pull(from, range, take).await?;
        let pulling = pulling.into_inner();
        if pulling.superseded {
            return Ok(false);
        }
        if pulling.compacted.upto > range.from {
            let compacted = Compacted {
                upto: pulling.compacted.upto.min(range.end),
                ..pulling.compacted
            };
            let set = pulling.segments.set_compacted(tp, compacted, range.end);
            set.await.map_err(store_error)?;
        }
        Ok(true)
    }
}

/// Where a range goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Behind what is here, which ends at this offset.
    Behind(Offset),
    /// Into a log of its own.
    Aside,
}

/// A range on its way into a partition's files.
struct Pulling<'a, D: Disk> {
    segments: &'a mut ShardSegments<D>,
    starts: Starts,
    range: Range,
    target: Where,
    compacted: Compacted,
    superseded: bool,
}

impl<D: Disk> Pulling<'_, D> {
    async fn take(&mut self, piece: Piece) -> io::Result<Taken> {
        let (tp, next) = (self.range.tp, self.range.from);
        self.compacted = piece.compacted;
        let upto = piece.compacted.upto;
        if self.target != Where::Aside && upto > next {
            self.superseded = true;
            return Ok(Taken::Enough);
        }
        let first = BatchHeader::parse(&piece.batches).map(|header| header.base_offset);
        if first.is_ok_and(|first| first < upto) {
            // The source's checkpoint may know older segments than those that were sent.
            let (base, appended) = piece.segment;
            self.starts.retain(|start, _| *start >= upto);
            self.starts.insert(base, appended);
            // What is not compacted never continues a segment that is.
            self.starts.entry(upto).or_insert(appended);
        }
        let (batches, end) = stored_batches(piece.batches.clone(), next, &self.starts)?;
        if !batches.is_empty() {
            let appended = match self.target {
                Where::Behind(_) => self.segments.append(tp, batches).await,
                Where::Aside => self.segments.append_aside(tp, batches).await,
            };
            appended.map_err(store_error)?;
        }
        Ok(Taken::Upto(piece.after(end)))
    }
}

/// Where the source's segments begin, and when the last batch of each was appended.
type Starts = BTreeMap<Offset, TimestampMs>;

/// When a pulled batch counts as appended: with the last one of its segment. Retention goes by
/// these times, and must not take a batch for older than it is; what its producer says may be
/// anything.
fn append_time(starts: &Starts, base: Offset, otherwise: TimestampMs) -> TimestampMs {
    let segment = starts.range(..=base).next_back();
    segment.map_or(otherwise, |(_, appended)| *appended)
}

/// The batches of a pulled piece from the one that holds `from` on, validated, with the segment
/// starts of their source.
fn stored_batches(
    bytes: Bytes,
    from: Offset,
    starts: &Starts,
) -> io::Result<(Vec<AppendBatch>, Offset)> {
    let mut batches = Vec::new();
    let mut after = from;
    for batch in split_batches(bytes) {
        let batch = batch.map_err(io::Error::other)?;
        let header = batch.header();
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        after = last_offset.plus(1);
        if last_offset < from {
            continue;
        }
        let stamped = batch.stamp(base_offset, header.leader_epoch.unwrap_or_default());
        batches.push(AppendBatch {
            head: stamped.head,
            body: stamped.body,
            base_offset,
            last_offset,
            max_timestamp: header.max_timestamp,
            append_time: append_time(starts, base_offset, header.max_timestamp),
            new_segment: starts.contains_key(&base_offset),
        });
    }
    Ok((batches, after))
}

#[cfg(test)]
#[path = "install_tests.rs"]
pub(super) mod tests;
