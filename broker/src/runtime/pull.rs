//! Ranges of partitions from one replica to another, piece by piece: how they are asked for, and how they
//! are served.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Env, Workers};
use highwater_proto::batch::{BatchError, BatchHeader, split_batches};
use highwater_proto::internal::{PullSnapshotRequest, PullSnapshotResponse};
use highwater_proto::{
    NodeId, Offset, PartitionId, Payload, ShardId, TimestampMs, TopicId, TopicPartition,
};
use highwater_segment::{Compacted, Pin};
use tokio::sync::mpsc;
use tonic::Status;

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

/// A piece of a range.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Whole batches; none where compaction has left nothing.
    pub batches: Bytes,
    /// The source has nothing between the batches and this. 0: behind the last batch.
    pub(super) next_offset: Offset,
    /// How far the source is compacted.
    pub(super) compacted: Compacted,
    /// The segment that the batches lie in, and when its last batch was appended; for those that are
    /// compacted.
    pub(super) segment: (Offset, TimestampMs),
}

impl From<PullSnapshotResponse> for Piece {
    fn from(response: PullSnapshotResponse) -> Self {
        Self {
            batches: response.batches,
            next_offset: Offset(response.next_offset),
            compacted: Compacted {
                generation: response.generation,
                upto: Offset(response.compacted_upto),
            },
            segment: (
                Offset(response.segment_base),
                TimestampMs(response.segment_appended_ms),
            ),
        }
    }
}

impl Piece {
    /// What follows it, given where its last batch ends.
    #[must_use]
    pub fn after(&self, batches_end: Offset) -> Offset {
        batches_end.max(self.next_offset)
    }
    /// How far the source is compacted.
    #[must_use]
    pub fn compacted(&self) -> Compacted {
        self.compacted
    }
    /// The segment that the batches lie in there, and when its last batch was appended; known of those
    /// that are compacted.
    #[must_use]
    pub fn segment(&self) -> (Offset, TimestampMs) {
        self.segment
    }
    /// Where its last batch ends; 0 without one.
    ///
    /// # Errors
    /// When it is no run of whole batches.
    pub fn end(&self) -> Result<Offset, BatchError> {
        let mut end = Offset(0);
        for batch in split_batches(self.batches.clone()) {
            end = batch?.header().next_offset();
        }
        Ok(end)
    }
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The next one is to begin here.
    Upto(Offset),
    /// No more is wanted.
    Enough,
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

    /// Pulls a range piece by piece; `take` gets each, in order, as whole batches, and says from where
    /// on the next ones are wanted, or that no more are.
    ///
    /// # Errors
    /// When the peer does not deliver the whole range, or `take` fails.
    pub async fn pull<F, T>(&self, node: NodeId, range: Range, mut take: F) -> io::Result<()>
    where
        F: FnMut(Piece) -> T,
        T: Future<Output = io::Result<Taken>>,
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
            match take(Piece::from(piece)).await? {
                Taken::Upto(after) => next = after,
                Taken::Enough => break,
            }
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
    let range = Range {
        shard: shard.id,
        tp,
        from: Offset(request.from_offset),
        end: Offset(request.end_offset).min(view.high_watermark()),
    };
    // Until the whole range is sent, what is compacted stays as it is: the beginning of one state and
    // the end of another, which may lack a record that says that a key is gone, are no state at all.
    let pin = view.pin().map(Arc::new);
    let mut sender = Sender {
        broker,
        pieces,
        compacted: pin
            .as_ref()
            .map_or_else(Compacted::default, |pin| pin.compacted()),
    };
    let next = match pin {
        Some(pin) => send_compacted(&mut sender, &pin, &range).await?,
        None => Some(range.from),
    };
    let Some(mut next) = next else { return Ok(()) };
    let most = piece_bytes(broker.config.limits.move_bytes_per_second.0);
    while next < range.end {
        let workers: Workers = broker.env.workers();
        let read = view
            .read_for_replica((next, range.end), most, workers)
            .await;
        let read = read.inspect_err(|error| broker.damage.note(shard.id, error));
        let read = read.map_err(|error| error.to_string())?;
        next = read
            .next_offset
            .ok_or_else(|| format!("{tp} holds nothing from {next} on"))?;
        let batches = read.pieces.into_iter().collect::<Payload>().to_contiguous();
        let piece = PullSnapshotResponse {
            batches,
            next_offset: next.0,
            ..PullSnapshotResponse::default()
        };
        if !sender.send(piece).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends what lies below the end of compaction: from files alone, since memory may still hold what is
/// compacted away. Where to go on; `None`: nobody takes it.
async fn send_compacted<E: Env>(
    sender: &mut Sender<'_, E>,
    pin: &Arc<Pin<E::Disk>>,
    range: &Range,
) -> Result<Option<Offset>, String> {
    let broker = sender.broker;
    let end = range.end.min(pin.compacted().upto);
    let most = piece_bytes(broker.config.limits.move_bytes_per_second.0);
    let mut next = range.from;
    while next < end {
        let (pinned, from) = (Arc::clone(pin), next);
        let read = move || pinned.read(from, most, end);
        let read = match broker.env.workers() {
            Workers::Tasks => read(),
            Workers::Threads => super::blocking(read).await,
        };
        let read = read.inspect_err(|error| broker.damage.note(range.shard, error));
        let read = read.map_err(|error| error.to_string())?;
        next = match last_offset(&read.batches) {
            Some(last) => last.plus(1),
            None => end,
        };
        let segment = read
            .segment
            .map(|s| (s.base_offset.0, s.last_append_time.0));
        let (segment_base, segment_appended_ms) = segment.unwrap_or_default();
        let piece = PullSnapshotResponse {
            batches: read.batches,
            next_offset: next.0,
            segment_base,
            segment_appended_ms,
            ..PullSnapshotResponse::default()
        };
        if !sender.send(piece).await {
            return Ok(None);
        }
    }
    Ok(Some(next))
}

/// The last offset of whole batches, if there are any.
fn last_offset(mut batches: &[u8]) -> Option<Offset> {
    let mut last = None;
    while let Ok(header) = BatchHeader::parse(batches) {
        last = Some(header.last_offset());
        batches = batches.get(header.total_len()..).unwrap_or_default();
    }
    last
}

/// Whom a range is sent to, and how fast.
struct Sender<'a, E: Env> {
    broker: &'a Broker<E>,
    pieces: &'a mpsc::Sender<Result<PullSnapshotResponse, Status>>,
    compacted: Compacted,
}

impl<E: Env> Sender<'_, E> {
    /// Sends a piece when its turn has come; whether somebody takes it.
    async fn send(&mut self, piece: PullSnapshotResponse) -> bool {
        let bytes = piece.batches.len() as u64;
        let waited = self.broker.moving.spend(bytes).await;
        metrics::counter!("highwater_move_bytes_total").increment(bytes);
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        metrics::counter!("highwater_move_throttled_ms_total").increment(waited);
        let piece = PullSnapshotResponse {
            generation: self.compacted.generation,
            compacted_upto: self.compacted.upto.0,
            ..piece
        };
        self.pieces.send(Ok(piece)).await.is_ok()
    }
}
