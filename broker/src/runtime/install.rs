//! A replica that is too far behind the retained log: it gets the leader's checkpoint, pulls the
//! ranges it lacks by partition and offset, and goes on from there.
//!
//! Everything this replica has applied is committed, so what it holds of a partition stays; only
//! what lies between its end and the checkpoint's is fetched. Nothing is promised before the new
//! checkpoint is durable here: a crash in between leaves the old one, and the pull starts again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Env, Workers};
use highwater_proto::batch::split_batches;
use highwater_proto::internal::{PullSnapshotRequest, PullSnapshotResponse};
use highwater_proto::{
    NodeId, Offset, PartitionId, Payload, ShardId, TimestampMs, TopicId, TopicPartition,
};
use highwater_segment::{AppendBatch, PartitionManifest};
use tokio::sync::mpsc;
use tonic::Status;

use super::checkpoint::store_error;
use super::machine::ShardMachine;
use crate::control::peers::PeerClients;
use crate::node::Broker;

/// Bytes of one piece of a range.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes of one piece under a bound on bytes a second: an eighth of a second's worth, so that a bound
/// is felt as a rate and not as bursts.
fn piece_bytes(bytes_per_second: u64) -> usize {
    const LEAST: usize = 64 << 10;
    match usize::try_from(bytes_per_second / 8) {
        Ok(0) if bytes_per_second == 0 => PIECE_BYTES,
        Ok(share) => share.clamp(LEAST, PIECE_BYTES),
        Err(_) => PIECE_BYTES,
    }
}

/// Where ranges are pulled from.
#[derive(Debug)]
pub struct SnapshotSource<E: Env> {
    peers: Arc<PeerClients<E>>,
}

/// A range could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("pulling {tp} from broker {from}: {reason}")]
pub struct PullError {
    tp: TopicPartition,
    from: NodeId,
    reason: String,
}

/// A range to pull.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The shard.
    pub shard: ShardId,
    /// The partition.
    pub tp: TopicPartition,
    /// The first offset wanted.
    pub from: Offset,
    /// The first offset not wanted.
    pub end: Offset,
}

impl<E: Env> SnapshotSource<E> {
    /// Pulls from peers.
    #[must_use]
    pub fn new(peers: Arc<PeerClients<E>>) -> Self {
        Self { peers }
    }

    /// Pulls a range piece by piece; `take` gets each, in order, as whole batches.
    ///
    /// # Errors
    /// When the peer does not deliver the whole range, or `take` fails.
    pub async fn pull<F, T>(&self, node: NodeId, range: Range, mut take: F) -> io::Result<()>
    where
        F: FnMut(Bytes) -> T,
        T: Future<Output = io::Result<Offset>>,
    {
        let failed = |reason: String| {
            io::Error::other(PullError {
                tp: range.tp,
                from: node,
                reason,
            })
        };
        let mut client = self.peers.client(node).map_err(failed)?;
        let request = PullSnapshotRequest {
            shard: range.shard.0,
            topic_id: range.tp.topic.0,
            partition: range.tp.partition.0,
            from_offset: range.from.0,
            end_offset: range.end.0,
        };
        let mut pieces = client
            .pull_snapshot(request)
            .await
            .map_err(|s| failed(s.to_string()))?
            .into_inner();
        let mut next = range.from;
        while next < range.end {
            let piece = pieces.message().await.map_err(|s| failed(s.to_string()))?;
            let piece = piece.ok_or_else(|| failed(format!("ended at offset {next}")))?;
            if !piece.error.is_empty() {
                return Err(failed(piece.error));
            }
            next = take(piece.batches).await?;
        }
        Ok(())
    }
}

/// Serves a range from this broker's replica.
pub async fn serve<E: Env>(
    broker: Arc<Broker<E>>,
    request: PullSnapshotRequest,
    pieces: mpsc::Sender<Result<PullSnapshotResponse, Status>>,
) {
    if let Err(error) = send_range(&broker, &request, &pieces).await {
        let last = PullSnapshotResponse {
            error,
            ..PullSnapshotResponse::default()
        };
        // The puller has gone, or it reads the reason.
        let _ = pieces.send(Ok(last)).await;
    }
}

async fn send_range<E: Env>(
    broker: &Broker<E>,
    request: &PullSnapshotRequest,
    pieces: &mpsc::Sender<Result<PullSnapshotResponse, Status>>,
) -> Result<(), String> {
    let tp = TopicPartition::new(TopicId(request.topic_id), PartitionId(request.partition));
    let shard = broker.shards.get(ShardId(request.shard));
    let shard = shard.ok_or_else(|| format!("shard {} is not hosted here", request.shard))?;
    let view = shard
        .views
        .get(tp)
        .ok_or_else(|| format!("{tp} is not here any more"))?;
    let end = Offset(request.end_offset).min(view.high_watermark());
    let mut next = Offset(request.from_offset);
    let most = piece_bytes(broker.config.limits.move_bytes_per_second.0);
    while next < end {
        let workers: Workers = broker.env.workers();
        let read = view.read((next, end), most, workers).await;
        let read = read.inspect_err(|error| broker.damage.note(shard.id, error));
        let read = read.map_err(|error| error.to_string())?;
        next = read
            .next_offset
            .ok_or_else(|| format!("{tp} holds nothing from {next} on"))?;
        let batches = read.pieces.into_iter().collect::<Payload>().to_contiguous();
        let bytes = batches.len() as u64;
        let waited = broker.moving.spend(bytes).await;
        metrics::counter!("highwater_move_bytes_total").increment(bytes);
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        metrics::counter!("highwater_move_throttled_ms_total").increment(waited);
        let piece = PullSnapshotResponse {
            batches,
            error: String::new(),
        };
        if pieces.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl<E: Env> ShardMachine<E> {
    /// Brings one partition's files up to the end of the leader's manifest.
    pub(super) async fn pull(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        theirs: &PartitionManifest,
    ) -> io::Result<()> {
        let held = self.context.store.written_up_to(tp);
        let next = match held {
            Some(next) if next >= theirs.log_start => next,
            // Nothing here, or all of it below their start: begin at their start.
            _ => theirs.log_start,
        };
        if held.is_none() {
            self.segments.create(tp).await.map_err(store_error)?;
        }
        if next < theirs.next_offset {
            self.pull_from(from, tp, (held, next), theirs).await?;
        }
        self.segments
            .trim(tp, theirs.log_start)
            .await
            .map_err(store_error)
    }

    async fn pull_from(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        (held, next): (Option<Offset>, Offset),
        theirs: &PartitionManifest,
    ) -> io::Result<()> {
        let starts: Starts = theirs
            .segments
            .iter()
            .map(|s| (s.base_offset, s.last_append_time))
            .collect();
        let range = Range {
            shard: self.id,
            tp,
            from: next,
            end: theirs.next_offset,
        };
        let context = Arc::clone(&self.context);
        let segments = tokio::sync::Mutex::new(&mut self.segments);
        let (segments, starts) = (&segments, &starts);
        let take = |bytes: Bytes| async move {
            let (batches, after) = stored_batches(bytes, next, starts)?;
            let mut segments = segments.lock().await;
            if let Some(start) = start_over(held, next, &batches) {
                segments.trim(tp, start).await.map_err(store_error)?;
            }
            segments.append(tp, batches).await.map_err(store_error)?;
            Ok(after)
        };
        context.snapshots.pull(from, range, take).await
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

/// Where the log begins anew when the first piece does not continue what is held: what lies between
/// is gone everywhere. The batch that their start, `next`, lies in comes whole, so the log begins
/// with it until all is there.
fn start_over(held: Option<Offset>, next: Offset, batches: &[AppendBatch]) -> Option<Offset> {
    let first = batches.first()?.base_offset;
    (first <= next && held.is_some_and(|held| held < first)).then_some(first)
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
mod tests;
