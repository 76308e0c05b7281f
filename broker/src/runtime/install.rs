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
use highwater_env::{Disk, Env, Workers};
use highwater_proto::batch::{BatchError, BatchHeader, split_batches};
use highwater_proto::internal::{PullSnapshotRequest, PullSnapshotResponse};
use highwater_proto::{
    NodeId, Offset, PartitionId, Payload, ShardId, TimestampMs, TopicId, TopicPartition,
};
use highwater_segment::{AppendBatch, Compacted, PartitionManifest, Pin, ShardSegments};
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

/// A piece of a range.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Whole batches; none where compaction has left nothing.
    pub batches: Bytes,
    /// The source has nothing between the batches and this. 0: behind the last batch.
    next_offset: Offset,
    /// How far the source is compacted.
    compacted: Compacted,
    /// The segment that the batches lie in, and when its last batch was appended; for those that are
    /// compacted.
    segment: (Offset, TimestampMs),
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

impl<E: Env> ShardMachine<E> {
    /// Drops the logs of partitions that were here before, have gone and have come back: they lie
    /// elsewhere, and are pulled as a whole.
    pub(super) async fn drop_earlier(
        &mut self,
        theirs: &[(TopicPartition, PartitionManifest)],
    ) -> io::Result<()> {
        let ours = self.segments.freeze().wait().await.map_err(store_error)?;
        let ours: BTreeMap<_, _> = ours.iter().map(|(tp, m)| (*tp, m.arrival)).collect();
        for (tp, manifest) in theirs {
            if ours.get(tp).is_some_and(|here| *here != manifest.arrival) {
                self.segments.delete(*tp).await.map_err(store_error)?;
            }
        }
        // What comes next asks how far they are written.
        self.segments.freeze().wait().await.map_err(store_error)?;
        Ok(())
    }

    /// Brings one partition's files up to the end of the leader's manifest.
    pub(super) async fn pull(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        theirs: &PartitionManifest,
    ) -> io::Result<()> {
        let held = self.context.store.written_up_to(self.id, tp);
        let next = match held {
            Some(next) if next >= theirs.log_start => next,
            // Nothing here, or all of it below their start: begin at their start.
            _ => theirs.log_start,
        };
        if held.is_none() {
            let created = self.segments.create(tp, theirs.arrival).await;
            created.map_err(store_error)?;
        }
        if next < theirs.next_offset {
            let done = self.pull_from(from, tp, (held, next), theirs).await?;
            if !done {
                // It is compacted beyond the end of what is here: what a record superseded may be
                // here, and that record gone there. So all of it comes from there.
                let start = theirs.log_start;
                let anew = self.segments.begin_anew(tp, start);
                anew.await.map_err(store_error)?;
                self.pull_from(from, tp, (None, start), theirs).await?;
            }
        }
        self.segments
            .trim(tp, theirs.log_start)
            .await
            .map_err(store_error)
    }

    /// Pulls from `next` on. `false`: nothing was taken, because the source has compacted more than is
    /// held here.
    async fn pull_from(
        &mut self,
        from: NodeId,
        tp: TopicPartition,
        (held, next): (Option<Offset>, Offset),
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
            from: next,
            end: theirs.next_offset,
        };
        let context = Arc::clone(&self.context);
        let pulling = tokio::sync::Mutex::new(Pulling {
            segments: &mut self.segments,
            starts,
            range,
            // A log without records is as good as none.
            held: held.filter(|held| *held > Offset(0)),
            compacted: Compacted::default(),
            superseded: false,
        });
        let (target, pulling) = (&pulling, &pulling);
        let take = |piece: Piece| async move { target.lock().await.take(piece).await };
        context.snapshots.pull(from, range, take).await?;
        let mut pulling = pulling.lock().await;
        if pulling.superseded {
            return Ok(false);
        }
        if pulling.compacted.upto > next {
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

/// A range on its way into a partition's files.
struct Pulling<'a, D: Disk> {
    segments: &'a mut ShardSegments<D>,
    starts: Starts,
    range: Range,
    held: Option<Offset>,
    compacted: Compacted,
    superseded: bool,
}

impl<D: Disk> Pulling<'_, D> {
    async fn take(&mut self, piece: Piece) -> io::Result<Taken> {
        let (tp, next) = (self.range.tp, self.range.from);
        self.compacted = piece.compacted;
        if self.held.is_some() && piece.compacted.upto > next {
            self.superseded = true;
            return Ok(Taken::Enough);
        }
        let first = BatchHeader::parse(&piece.batches).map(|header| header.base_offset);
        let upto = piece.compacted.upto;
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
            if let Some(start) = start_over(self.held, next, &batches) {
                let trimmed = self.segments.trim(tp, start);
                trimmed.await.map_err(store_error)?;
            }
            let appended = self.segments.append(tp, batches);
            appended.await.map_err(store_error)?;
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
pub(super) mod tests;
