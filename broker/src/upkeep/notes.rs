//! Notes of damage over a restart: what is noted is written down, and what an earlier process noted is
//! read again, as it may have been put back, or its replica may be gone.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Env, SyncFailed};
use highwater_proto::ShardId;

use super::pace::Pace;
use super::scrub;
use crate::node::{self, Broker};
use crate::runtime::damage::Place;
use crate::runtime::damage_file::{self, DamageFileError, Noted};

/// Between two attempts to write, on a full disk say.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the notes down whenever they change. Cancellation-safe: the old ones stay, or the new ones
/// are there.
pub async fn keep<E: Env>(broker: &Arc<Broker<E>>) {
    // What an earlier process wrote is written once more: nothing of it is bad that is not noted.
    let mut kept: Vec<Noted> = Vec::new();
    loop {
        let changed = broker.damage.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let noted = broker.damage.to_keep();
        if kept == noted {
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            continue;
        }
        match write(broker, noted.clone()).await {
            Ok(()) => kept = noted,
            Err(reason) => {
                tracing::warn!(reason, "notes of damage are not written yet; will repeat");
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
}

async fn write<E: Env>(broker: &Broker<E>, noted: Vec<Noted>) -> Result<(), String> {
    let (disk, dir) = (
        broker.env.disk().clone(),
        broker.config.node.data_dir.clone(),
    );
    let store = &broker.shard_context.store;
    let written = store.call(move || damage_file::store(&disk, &dir, &noted));
    let written = written.await.map_err(|error| error.to_string())?;
    if let Err(DamageFileError::Io { source, .. }) = &written
        && SyncFailed::is_in(source)
    {
        node::end(source);
    }
    written.map_err(|error| error.to_string())
}

/// Whether a noted range is bad here and now. One that an earlier process noted is read first.
pub async fn settle<E: Env>(broker: &Broker<E>, shard: ShardId, place: Place) -> bool {
    if broker.shards.get(shard).is_none() {
        let image = broker.cluster.image();
        let known = image.shard(shard);
        // At start the replicas are not there yet.
        if known.is_some_and(|shard| !shard.is_hosted_by(broker.node_id)) {
            broker.damage.forget(shard);
        }
        return false;
    }
    let (tp, base) = place;
    let reader = broker.shard_context.store.reader(shard, tp);
    let there = reader.filter(|reader| reader.segments().iter().any(|s| s.base_offset == base));
    let Some(reader) = there else {
        // A replica that is there has everything open that its checkpoint names. What the checkpoint does
        // not name is gone, or is written anew from the log: nothing of the bad range is left. It is not
        // waited for, because that needs a leader, and where most replicas have such a note there is none.
        broker.damage.clear(shard, place);
        return false;
    };
    if !broker.damage.is_unread(shard, place) {
        return true;
    }
    match scrub::check(broker, &reader, base, &Pace::new(0)).await {
        Ok(Ok(())) => {
            tracing::info!(
                shard = shard.0, partition = %tp, segment = %base,
                "a range that was bad before the restart is whole, or gone"
            );
            broker.damage.clear(shard, place);
            false
        }
        Ok(Err(error)) => {
            tracing::error!(
                shard = shard.0, partition = %tp, segment = %base, %error,
                "a range that was bad before the restart still is"
            );
            broker.damage.confirm(shard, place);
            true
        }
        Err(error) => {
            tracing::debug!(%error, "the broker is stopping");
            false
        }
    }
}
