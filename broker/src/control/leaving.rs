//! A partition that goes to another shard, where it leaves: what it is like, the hold that ends its
//! compaction, and the fence behind which nothing of it changes any more. Asked by the leader of the shard
//! that it goes to.
//!
//! A hold or a fence is written only by a leader whose image has the plan, and the move not given up. One that
//! comes too late all the same is taken back by whoever sees that (`strays.rs`).

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Disk, Env};
use highwater_metadata::MoveState;
use highwater_proto::internal::{
    LeavingPartitionRequest, LeavingPartitionResponse, WrittenSegment,
};
use highwater_proto::{NodeId, Offset, PartitionId, ShardId, TopicId, TopicPartition};
use highwater_segment::{Compacted, SegmentManifest};
use highwater_shard::{
    CompactionFacts, FeatureLevel, MoveCommand, MoveStep, ShardCommand, ShardReply,
};
use tokio::time::Instant;

use super::controller::propose_here;
use crate::groups::raise_level;
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::standing::Standing;
use crate::runtime::view::PartitionView;

const DEADLINE: Duration = Duration::from_secs(5);

/// Asks the leader of the shard that a partition leaves; who answered, and what.
///
/// # Errors
/// In one line; a hold or a fence that was asked for may or may not be there.
pub async fn ask<E: Env>(
    broker: &Arc<Broker<E>>,
    request: LeavingPartitionRequest,
) -> Result<(NodeId, LeavingPartitionResponse), String> {
    let shard = ShardId(request.shard);
    let leader = broker.cluster.leader(shard).and_then(|info| info.node);
    let leader = leader.ok_or_else(|| format!("shard {shard} has no leader"))?;
    let response = if leader == broker.node_id {
        serve(broker, request).await
    } else {
        let mut client = broker.peers.client(leader)?;
        let call = client.leaving_partition(request);
        broker.peers.answer(leader, DEADLINE, call).await?
    };
    if response.error.is_empty() {
        Ok((leader, response))
    } else {
        Err(response.error)
    }
}

/// Answers for a shard that is led here.
pub async fn serve<E: Env>(
    broker: &Broker<E>,
    request: LeavingPartitionRequest,
) -> LeavingPartitionResponse {
    answer(broker, &request)
        .await
        .unwrap_or_else(|error| LeavingPartitionResponse {
            error,
            ..LeavingPartitionResponse::default()
        })
}

async fn answer<E: Env>(
    broker: &Broker<E>,
    request: &LeavingPartitionRequest,
) -> Result<LeavingPartitionResponse, String> {
    let tp = TopicPartition::new(TopicId(request.topic_id), PartitionId(request.partition));
    let id = ShardId(request.shard);
    let shard = broker
        .shards
        .get(id)
        .filter(|shard| shard.group.is_leader());
    let shard = shard.ok_or_else(|| format!("shard {id} is not led here"))?;
    check_plan(broker, (id, tp), request.plan)?;
    let view = shard.views.get(tp);
    let view = view.ok_or_else(|| format!("{tp} is not here yet"))?;
    let mut state = bytes::Bytes::new();
    if view.standing().leaves_by() != Some(request.plan) {
        write(broker, &shard, (tp, request.plan), MoveStep::Hold).await?;
    }
    if view.is_serving() {
        check_compacted(&view)?;
    }
    if request.fence {
        write(broker, &shard, (tp, request.plan), MoveStep::Fence).await?;
        state = match view.standing() {
            Standing::Fenced { plan, state } if plan == request.plan => state,
            _ => return Err(format!("{tp} is fenced no more")),
        };
    }
    Ok(LeavingPartitionResponse {
        feature_level: shard.groups.rules().0,
        state,
        ..facts(&view, broker.append_time_ms())
    })
}

/// Whether this replica has done the last compaction of a partition that is held. Until then it is not
/// copied from, and not fenced, because nobody could write meanwhile.
fn check_compacted<D: Disk>(view: &PartitionView<D>) -> Result<(), String> {
    let done = view.compacted();
    match view
        .compaction()
        .filter(|last| is_awaited(last, done, view.log_start()))
    {
        None => Ok(()),
        Some(last) => Err(format!(
            "{} is compacted up to {} here, and is to be up to {} before it is copied",
            view.topic_partition(),
            done.upto,
            last.upto
        )),
    }
}

/// Whether a compaction that was decided is to be done yet. Of what lies below the log's start nothing is copied.
fn is_awaited(last: &CompactionFacts, done: Compacted, log_start: Offset) -> bool {
    (last.generation, last.upto) != (done.generation, done.upto) && last.upto > log_start
}

/// The end is taken first: nothing below it was appended later than the segments and the time say.
fn facts<D: Disk>(view: &PartitionView<D>, now_ms: i64) -> LeavingPartitionResponse {
    let high_watermark = view.high_watermark().0;
    let segments = view.segments().iter().map(written).collect();
    let compaction = view.compaction();
    LeavingPartitionResponse {
        config: Some(view.config()),
        log_start_offset: view.log_start().0,
        high_watermark,
        segments,
        now_ms,
        generation: compaction.map_or(0, |last| last.generation),
        compacted_upto: compaction.map_or(0, |last| last.upto.0),
        ..LeavingPartitionResponse::default()
    }
}

fn written(segment: &SegmentManifest) -> WrittenSegment {
    WrittenSegment {
        base_offset: segment.base_offset.0,
        next_offset: segment.next_offset.0,
        appended_ms: segment.last_append_time.0,
    }
}

/// Whether this broker knows that the plan moves the partition away from here, and that it was not
/// given up.
fn check_plan<E: Env>(
    broker: &Broker<E>,
    (shard, tp): (ShardId, TopicPartition),
    plan: u64,
) -> Result<(), String> {
    let image = broker.cluster.image();
    if !image.has_heard_of_plan(plan) {
        return Err(format!(
            "broker {} has not heard of plan {plan} yet",
            broker.node_id
        ));
    }
    let running = image.running_plan().filter(|running| running.id == plan);
    let moving = running.and_then(|running| running.moving(tp.topic, tp.partition));
    match moving {
        Some(moving) if moving.from == shard && moving.state == MoveState::Learning => Ok(()),
        Some(_) => Err(format!("plan {plan} has not begun to move {tp} yet")),
        None => Err(format!("plan {plan} does not move {tp} any more")),
    }
}

async fn write<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    (tp, plan): (TopicPartition, u64),
    step: MoveStep,
) -> Result<(), String> {
    if shard.groups.rules() < FeatureLevel::HOLDS {
        let deadline = Instant::now() + DEADLINE;
        let raised = raise_level(broker, shard, (FeatureLevel::HOLDS, deadline)).await;
        raised.map_err(|error| error.to_string())?;
    }
    let command = ShardCommand::Move(Box::new(MoveCommand { tp, plan, step }));
    let encoded = command.encode().to_contiguous();
    let reply = propose_here(broker, shard.id, encoded, DEADLINE).await;
    let reply = reply.map_err(|failure| failure.reason)?;
    match ShardReply::decode(&reply).map_err(|error| error.to_string())? {
        ShardReply::Done => Ok(()),
        ShardReply::Refused(why) => Err(format!("{tp}: {why}")),
        other => Err(format!("unexpected {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_is_awaited_until_it_was_done_here_as_far_as_was_decided() {
        let last = CompactionFacts {
            generation: 41,
            upto: Offset(9),
            floor: Offset(0),
            tombstones_below: Offset(0),
            segment_bytes: 0,
        };
        let waits = |generation, upto, log_start| {
            let upto = Offset(upto);
            is_awaited(&last, Compacted { generation, upto }, Offset(log_start))
        };
        assert!(waits(0, 0, 0) && waits(40, 6, 8), "not done");
        assert!(waits(41, 8, 0), "done in part, as a checkpoint knew it");
        assert!(!waits(41, 9, 0), "done");
        assert!(!waits(40, 6, 9), "nothing is left of it");
    }
}
