//! Fetch steps 2 to 5: follow one partition and push what becomes visible, as far as credit goes.
//!
//! Reads never pass the high watermark. A position above the local mark waits: being behind is no
//! error. Only the leader, after it has made sure that it still leads, may say that an offset is
//! beyond the end.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::v1::{Error, FetchResponse, Subscribe};
use highwater_proto::{Offset, PartitionId, TopicId, TopicPartition};
use highwater_segment::ReadError;
use tokio::sync::mpsc;

use super::convert;
use super::credit::Credit;
use super::egress::{Outflow, Sent};
use crate::node::Broker;
use crate::router::Route;
use crate::runtime::Shard;
use crate::runtime::tail::Pieces;
use crate::runtime::view::PartitionView;

/// Bytes of one response when the subscriber names no limit, and the most it may name.
const DEFAULT_RESPONSE_BYTES: usize = 1 << 20;
const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// How long a subscription waits for a replica that has just started.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(10);

/// Where a subscription's responses go.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// The subscription.
    pub id: u32,
    /// The stream's credit.
    pub credit: Arc<Credit>,
    /// What the stream may have on its way.
    pub outflow: Outflow,
    /// The stream.
    pub responses: mpsc::Sender<Sent>,
}

/// Runs one subscription until it fails or its stream goes.
pub async fn run<E: Env>(broker: Arc<Broker<E>>, subscribe: Subscribe, outlet: Outlet) {
    if let Err(error) = follow(&broker, &subscribe, &outlet).await {
        let response = FetchResponse {
            subscription_id: outlet.id,
            error: Some(error),
            ..FetchResponse::default()
        };
        // A stream that has gone needs no error.
        let _ = outlet.responses.send((Ok(response), None)).await;
    }
}

/// The shard here that serves a partition, leader or not if that is allowed.
fn shard_of<E: Env>(
    broker: &Broker<E>,
    tp: TopicPartition,
    allow_follower: bool,
) -> Result<Arc<Shard<E::Disk>>, Error> {
    if !allow_follower {
        return match broker.router.route(tp) {
            Route::Here { shard, .. } => Ok(shard),
            route => Err(convert::route_error(&broker.router, tp, &route)),
        };
    }
    match broker.router.replica(tp) {
        Route::Here { shard, .. } => Ok(shard),
        Route::Elsewhere(shard) => {
            let image = broker.cluster.image();
            let known = image.shard(shard);
            // It may just be starting.
            Err(
                match known.is_some_and(|shard| shard.is_hosted_by(broker.node_id)) {
                    true => convert::not_here_yet(tp),
                    false => convert::no_replica(&broker.router, tp),
                },
            )
        }
        route => Err(convert::route_error(&broker.router, tp, &route)),
    }
}

async fn follow<E: Env>(
    broker: &Arc<Broker<E>>,
    subscribe: &Subscribe,
    outlet: &Outlet,
) -> Result<(), Error> {
    let tp = TopicPartition::new(
        TopicId(subscribe.topic_id),
        PartitionId(subscribe.partition),
    );
    let shard = shard_of(broker, tp, subscribe.allow_follower)?;
    let view = shard
        .views
        .get(tp)
        .ok_or_else(|| convert::not_here_yet(tp))?;
    // Until everything that was applied before a restart is applied again, this replica's view may
    // lie behind what it showed before.
    let recovered = shard.group.wait_for_recovery(RECOVERY_DEADLINE).await;
    recovered.map_err(|error| convert::not_recovered(tp, &error))?;
    let mut next = Offset(subscribe.offset);
    check_start(&shard, &view, next, subscribe.allow_follower).await?;
    let max_bytes = response_bytes(subscribe.max_bytes);
    let follower = Follower {
        broker,
        shard: &shard,
        view: &view,
        leader_only: !subscribe.allow_follower,
    };
    loop {
        let end = follower.wait_beyond(next).await?;
        let turn = follower.unless_lost(outlet.credit.turn()).await?;
        let bytes = max_bytes
            .min(usize::try_from(turn.available()).unwrap_or(max_bytes))
            .max(1);
        let room = follower.unless_lost(outlet.outflow.room(bytes)).await?;
        let pieces = view
            .read((next, end), room.bytes(), broker.env.workers())
            .await
            .map_err(|error| follower.read_failed(&error))?;
        let Some(after) = pieces.next_offset else {
            return Err(nothing_at(&view, next));
        };
        if pieces.bytes == 0 {
            next = after; // compaction has left nothing of it
            continue;
        }
        let room = follower.unless_lost(outlet.outflow.fit(room, pieces.bytes));
        let room = room.await?;
        // Spent only with a place for the response: a subscription that is ended in between must
        // not take the stream's credit with it.
        let place = follower.unless_lost(outlet.responses.reserve()).await?;
        let Ok(place) = place else {
            return Ok(());
        };
        turn.spend(pieces.bytes);
        let response = response(outlet.id, &view, pieces, end);
        place.send((Ok(response), Some(room)));
        next = after;
        drop(turn);
    }
}

/// Why a range below the watermark holds nothing at or after `next`.
fn nothing_at<D: highwater_env::Disk>(view: &PartitionView<D>, next: Offset) -> Error {
    let (tp, start) = (view.topic_partition(), view.log_start());
    if next >= start {
        // Not trimmed: this replica is being filled anew.
        return convert::not_here_yet(tp);
    }
    convert::out_of_range(tp, next, start, view.high_watermark())
}

/// The most bytes of one response.
fn response_bytes(asked: u32) -> usize {
    match asked as usize {
        0 => DEFAULT_RESPONSE_BYTES,
        bytes => bytes.min(MAX_RESPONSE_BYTES),
    }
}

fn response<D: highwater_env::Disk>(
    id: u32,
    view: &PartitionView<D>,
    pieces: Pieces,
    end: Offset,
) -> FetchResponse {
    FetchResponse {
        subscription_id: id,
        pieces: pieces.pieces,
        high_watermark: end.0,
        log_start_offset: view.log_start().0,
        error: None,
    }
}

/// Below the start is out of range everywhere; above the end only on a leader that proves it.
async fn check_start<D: highwater_env::Disk>(
    shard: &Shard<D>,
    view: &PartitionView<D>,
    offset: Offset,
    may_be_behind: bool,
) -> Result<(), Error> {
    let tp = view.topic_partition();
    let out = || convert::out_of_range(tp, offset, view.log_start(), view.high_watermark());
    if offset < view.log_start() {
        return Err(out());
    }
    if offset <= view.high_watermark() || may_be_behind {
        return Ok(());
    }
    shard
        .group
        .read_barrier()
        .await
        .map_err(|error| convert::barrier_error(tp, &error))?;
    if offset > view.high_watermark() {
        Err(out())
    } else {
        Ok(())
    }
}

struct Follower<'a, E: Env> {
    broker: &'a Broker<E>,
    shard: &'a Shard<E::Disk>,
    view: &'a PartitionView<E::Disk>,
    leader_only: bool,
}

impl<E: Env> Follower<'_, E> {
    /// Waits until something at or after `next` is visible; the visible end.
    async fn wait_beyond(&self, next: Offset) -> Result<Offset, Error> {
        loop {
            let changed = self.view.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.check_still_here()?;
            if next < self.view.log_start() {
                let (start, end) = (self.view.log_start(), self.view.high_watermark());
                return Err(convert::out_of_range(
                    self.view.topic_partition(),
                    next,
                    start,
                    end,
                ));
            }
            let end = self.view.high_watermark();
            if end > next {
                return Ok(end);
            }
            self.unless_lost(changed).await?;
        }
    }

    /// Awaits `event`, but gives up when this broker stops leading the shard.
    async fn unless_lost<T>(&self, event: impl Future<Output = T>) -> Result<T, Error> {
        let mut status = self.shard.group.status();
        tokio::pin!(event);
        loop {
            tokio::select! {
                happened = &mut event => return Ok(happened),
                () = self.elsewhere() => {
                    let tp = self.view.topic_partition();
                    return Err(convert::not_leader(&self.broker.router, tp));
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return Err(convert::not_leader(&self.broker.router, self.view.topic_partition()));
                    }
                    self.check_still_here()?;
                }
            }
        }
    }

    /// Waits until a partition that leaves is in another shard. What this one has of it may stay for
    /// long, when nobody leads it, and nothing more comes. One that does not leave costs nothing: that it
    /// begins to wakes those who wait for something to read.
    async fn elsewhere(&self) {
        if self.view.is_serving() {
            return std::future::pending().await;
        }
        let tp = self.view.topic_partition();
        let mut changes = self.broker.cluster.changes();
        while !self.broker.router.is_elsewhere(tp, self.shard.id) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn read_failed(&self, error: &ReadError) -> Error {
        self.broker.damage.note(self.shard.id, error);
        let tp = self.view.topic_partition();
        convert::read_error(tp, error, self.view.log_start())
    }

    fn check_still_here(&self) -> Result<(), Error> {
        let tp = self.view.topic_partition();
        if self.view.is_deleted() {
            // With its topic, or from this shard alone.
            return Err(match self.broker.router.is_deleted(tp) {
                true => convert::deleted(tp),
                false => convert::moving(tp),
            });
        }
        if self.leader_only && !self.shard.group.is_leader() {
            return Err(convert::not_leader(&self.broker.router, tp));
        }
        Ok(())
    }
}
