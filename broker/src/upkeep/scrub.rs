//! The scrub: a slow walk over everything that this broker stores, which reads it again and finds what
//! is no longer what was written, before a reader or a lost replica makes it matter.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Clock, Env};
use highwater_proto::{Offset, ShardId, TopicPartition};
use highwater_segment::{Checked, PartitionReader, ReadError, StoreError};
use highwater_wal::LogChecked;
use tokio::time::Instant;

use super::pace::Pace;
use crate::node::{Broker, health};

/// Read at once.
const PIECE_BYTES: usize = 1 << 20;
/// What a piece costs however short it is: opening a file is work too.
const LEAST_BYTES: u64 = 16 << 10;
/// Between two looks whether the broker is ready.
const NOT_YET: Duration = Duration::from_secs(1);

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let settings = broker.config.scrub.clone();
    if settings.bytes_per_second.0 == 0 {
        return broker.stop.cancelled().await;
    }
    let walk = async {
        while !health::is_ready(&broker) {
            tokio::time::sleep(NOT_YET).await;
        }
        let pace = Pace::new(settings.bytes_per_second.0);
        loop {
            let began = Instant::now();
            if let Err(error) = pass(&broker, &pace).await {
                tracing::debug!(%error, "the scrub ends: the broker is stopping");
                return;
            }
            metrics::counter!("highwater_scrub_passes_total").increment(1);
            metrics::gauge!("highwater_scrub_pass_seconds").set(began.elapsed().as_secs_f64());
            tokio::time::sleep_until(began + settings.interval_ms.duration()).await;
        }
    };
    tokio::select! {
        () = walk => broker.stop.cancelled().await,
        () = broker.stop.cancelled() => {}
    }
}

/// Everything once. Each pass begins somewhere else, so that a broker that is restarted often comes
/// to everything in time.
async fn pass<E: Env>(broker: &Broker<E>, pace: &Pace) -> Result<(), StoreError> {
    scrub_log(broker, pace).await?;
    let mut places: Vec<(ShardId, TopicPartition)> = Vec::new();
    for shard in broker.shards.all() {
        places.extend(shard.views.all().into_iter().map(|tp| (shard.id, tp)));
    }
    if !places.is_empty() {
        let now = broker.env.clock().now_ms().unsigned_abs();
        let first = usize::try_from(now).unwrap_or_default() % places.len();
        places.rotate_left(first);
    }
    for (shard, tp) in places {
        let Some(reader) = broker.shard_context.store.reader(shard, tp) else {
            continue;
        };
        for segment in reader.segments() {
            let base = segment.base_offset;
            if broker.damage.is_noted(shard, (tp, base)) {
                continue;
            }
            match check(broker, &reader, base, pace).await? {
                Ok(()) => {}
                Err(error) => broker.damage.note(shard, &error),
            }
        }
    }
    Ok(())
}

/// One segment.
pub(super) async fn check<E: Env>(
    broker: &Broker<E>,
    reader: &PartitionReader<E::Disk>,
    base: Offset,
    pace: &Pace,
) -> Result<Result<(), ReadError>, StoreError> {
    let store = &broker.shard_context.store;
    let Some(mut check) = reader.check(base) else {
        return Ok(Ok(()));
    };
    let read_total = metrics::counter!("highwater_scrub_bytes_total");
    loop {
        let stepped = store.call(move || {
            let outcome = check.step(PIECE_BYTES);
            (check, outcome)
        });
        let (again, outcome) = stepped.await?;
        check = again;
        let bytes = match outcome {
            Ok(Checked::Some(bytes) | Checked::Whole(bytes)) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        read_total.increment(bytes);
        pace.spend(bytes.max(LEAST_BYTES)).await;
        if matches!(outcome, Ok(Checked::Whole(_))) {
            let reader = reader.clone();
            let removed = store.call(move || reader.remove_leftovers(base)).await?;
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove what a dead process left");
            }
            return Ok(Ok(()));
        }
    }
}

/// What lies in the write-ahead log, file by file: all of it has to be whole at the next start.
async fn scrub_log<E: Env>(broker: &Broker<E>, pace: &Pace) -> Result<(), StoreError> {
    let mut check = broker.wal.check();
    loop {
        let step = move || {
            let found = check.step(PIECE_BYTES as u64);
            (check, found)
        };
        let (again, found) = broker.shard_context.store.call(step).await?;
        check = again;
        match found {
            LogChecked::Some(bytes) => {
                metrics::counter!("highwater_scrub_bytes_total").increment(bytes);
                pace.spend(bytes.max(LEAST_BYTES)).await;
            }
            LogChecked::Bad(place) => {
                metrics::counter!("highwater_damaged_log_entries_total").increment(1);
                tracing::error!(
                    %place,
                    "a part of the log is bad: checkpoints take the place of what the log retains"
                );
                match place.group {
                    Some(group) => broker.damage.note_log(ShardId(group.0), place.to_string()),
                    None => broker.damage.renew_log(),
                }
            }
            LogChecked::End => return Ok(()),
        }
    }
}
