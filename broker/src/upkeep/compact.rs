//! Compactions that were decided are done: one at a time, paced, beside everything else.
//!
//! It does not matter when a replica does it, or how often it has to begin again: the result is the
//! same. What is bad in the files is found on the way, noted, and never copied.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::ShardId;
use highwater_segment::{
    Begun, CompactError, CompactionOptions, CompactionProgress, CompactionStats, CompactionTask,
    Replaced, Replacement, StoreError,
};
use tokio::time::Instant;

use super::pace::Pace;
use crate::node::Broker;
use crate::runtime::compaction::Place;

/// Read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Until what was decided is written, or nobody copies any more.
const SOON: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// After a failure.
const LATER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How a compaction ended.
enum Outcome {
    Done(CompactionStats),
    /// There is nothing to do, or nobody to do it for.
    Nothing,
    Soon(&'static str),
    Failed(String),
}

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let settings = &broker.config.compaction;
    let pace = Pace::new(settings.bytes_per_second.0);
    let options = CompactionOptions {
        key_bytes: usize::try_from(settings.dedupe_buffer_bytes.0).unwrap_or(usize::MAX),
        secret: rand::random(),
    };
    let work = async {
        loop {
            let (place, task) = broker.shard_context.compactions.next().await;
            if let Err(error) = attend(&broker, (place, task), &options, &pace).await {
                tracing::debug!(%error, "compaction ends: the broker is stopping");
                return broker.stop.cancelled().await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = broker.stop.cancelled() => {}
    }
}

async fn attend<E: Env>(
    broker: &Arc<Broker<E>>,
    (place, task): (Place, CompactionTask),
    options: &CompactionOptions,
    pace: &Pace,
) -> Result<(), StoreError> {
    let began = Instant::now();
    let queue = &broker.shard_context.compactions;
    let (shard, partition) = (place.0.0, place.1);
    match compact(broker, place, task, (options, pace)).await? {
        Outcome::Done(stats) => {
            queue.done(place, task.generation);
            note(&stats, began.elapsed());
            tracing::info!(
                shard, %partition, upto = task.upto.0, before = stats.before, after = stats.after,
                rounds = stats.rounds, seconds = began.elapsed().as_secs_f64(), "compacted"
            );
        }
        Outcome::Nothing => queue.done(place, task.generation),
        Outcome::Soon(why) => {
            tracing::debug!(shard, %partition, why, "not compacted yet");
            queue.later(place, SOON.0, SOON.1);
        }
        Outcome::Failed(error) => {
            metrics::counter!("highwater_compaction_failures_total").increment(1);
            tracing::warn!(shard, %partition, error, "not compacted; will repeat");
            queue.later(place, LATER.0, LATER.1);
        }
    }
    Ok(())
}

fn note(stats: &CompactionStats, took: Duration) {
    metrics::counter!("highwater_compactions_total").increment(1);
    metrics::counter!("highwater_compaction_read_bytes_total").increment(stats.read);
    metrics::counter!("highwater_compaction_written_bytes_total").increment(stats.written);
    let gone = stats.before.saturating_sub(stats.after);
    metrics::counter!("highwater_compaction_reclaimed_bytes_total").increment(gone);
    metrics::histogram!("highwater_compaction_seconds").record(took.as_secs_f64());
}

async fn compact<E: Env>(
    broker: &Arc<Broker<E>>,
    (shard, tp): Place,
    task: CompactionTask,
    (options, pace): (&CompactionOptions, &Pace),
) -> Result<Outcome, StoreError> {
    let store = &broker.shard_context.store;
    let Some(hosted) = broker.shards.get(shard) else {
        return Ok(Outcome::Soon("its shard is not up yet"));
    };
    if hosted.views.get(tp).is_none() {
        return Ok(Outcome::Nothing);
    }
    let Some(reader) = store.reader(shard, tp) else {
        return Ok(Outcome::Soon("its log is not open yet"));
    };
    if broker.damage.touches(shard, tp) {
        return Ok(Outcome::Soon("a range of it is bad"));
    }
    if broker.gate.is_storage_full() {
        return Ok(Outcome::Failed("there is too little free space".to_owned()));
    }
    let options = *options;
    let begun = store.call_compactor(move || reader.compact(task, &options));
    let mut compaction = match begun.await? {
        Begun::Ready(compaction) => compaction,
        Begun::Done => return Ok(Outcome::Nothing),
        Begun::NotYet => return Ok(Outcome::Soon("not all of it is written")),
        Begun::Unaligned => {
            let text = "a segment reaches over the end of what is to be compacted";
            return Ok(Outcome::Failed(text.to_owned()));
        }
    };
    loop {
        let stepped = store.call_compactor(move || {
            let outcome = compaction.step(PIECE_BYTES);
            (compaction, outcome)
        });
        let outcome;
        (compaction, outcome) = stepped.await?;
        match outcome {
            Ok(CompactionProgress::Some(bytes)) => drop(pace.spend(bytes).await),
            Ok(CompactionProgress::Complete) => break,
            Err(error) => {
                store.call_compactor(move || compaction.discard()).await?;
                return Ok(failed(broker, shard, error));
            }
        }
    }
    let stats = compaction.stats();
    let Some(new) = compaction.finish() else {
        return Ok(Outcome::Failed("it did not end".to_owned()));
    };
    Ok(match put(broker, shard, new).await? {
        Replaced::Done => Outcome::Done(stats),
        Replaced::Pinned | Replaced::Stale => Outcome::Soon("its log was begun anew meanwhile"),
    })
}

fn failed<E: Env>(broker: &Broker<E>, shard: ShardId, error: CompactError) -> Outcome {
    match &error {
        // Its files went while they were read.
        CompactError::Read(highwater_segment::ReadError::BelowStart { .. }) => {
            return Outcome::Soon("it was trimmed meanwhile");
        }
        CompactError::Read(read) => broker.damage.note(shard, read),
        CompactError::StorageFull { .. } | CompactError::Io { .. } | CompactError::Fault(_) => {}
    }
    Outcome::Failed(error.to_string())
}

/// Puts the result into its place, once nobody copies what it replaces. It is discarded when the log is
/// not the one any more that it was made from.
pub(super) async fn put<E: Env>(
    broker: &Broker<E>,
    shard: ShardId,
    mut new: Replacement<E::Disk>,
) -> Result<Replaced, StoreError> {
    let store = &broker.shard_context.store;
    loop {
        let outcome;
        (outcome, new) = store.replace(new).await?;
        match outcome {
            Replaced::Done => {
                broker.shard_context.compactions.replaced.note(shard);
                return Ok(outcome);
            }
            Replaced::Pinned => tokio::time::sleep(SOON.0).await,
            Replaced::Stale => {
                store.call_compactor(move || new.discard()).await?;
                return Ok(outcome);
            }
        }
    }
}
