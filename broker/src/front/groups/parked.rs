//! Parked keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_env::Env;
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupPark, GroupParkKey, GroupUnpark};
use highwater_proto::v1::{
    Error, ListParkedKeysRequest, ListParkedKeysResponse, ParkKeysRequest, ParkKeysResponse,
    ParkedKey, UnparkKeysRequest, UnparkKeysResponse, UnparkResult,
};
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use highwater_shard::FeatureLevel;
use highwater_shard::groups::Parked;
use tokio::time::Instant;

use super::offsets::to_commands;
use super::route::{self, coordinated, current, invalid, propose};
use crate::groups::raise_level;
use crate::node::Broker;

const DEFAULT_PAGE: usize = 1_000;
const LARGEST_PAGE: usize = 10_000;
/// Topic and partition in a page token; the key follows.
const PLACE_BYTES: usize = 12;

/// Parks keys and commits offsets.
pub async fn park<E: Env>(
    broker: &Arc<Broker<E>>,
    request: ParkKeysRequest,
) -> Result<ParkKeysResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    if request.keys.is_empty() {
        return Err(invalid("no key to be parked"));
    }
    shard.coordinator.heard(&request.group, &request.member_id);
    let keys = request.keys.into_iter().map(|key| GroupParkKey {
        topic: key.topic_id,
        partition: key.partition,
        key: key.key,
        offset: key.offset,
    });
    let action = Action::Park(GroupPark {
        member_id: request.member_id,
        instance_id: request.instance_id,
        epoch: request.epoch,
        keys: keys.collect(),
        offsets: to_commands(request.offsets)?,
    });
    let timeout = route::timeout(request.timeout_ms);
    if shard.groups.rules() < FeatureLevel::PARKS {
        let level = (FeatureLevel::PARKS, Instant::now() + timeout);
        // Beside an older release, older rules go on.
        if let Err(error) = raise_level(broker, &shard, level).await {
            tracing::debug!(group = request.group, %error, "level not raised");
        }
    }
    let outcome = propose(broker, &shard, (&request.group, action), timeout).await?;
    Ok(ParkKeysResponse {
        error: None,
        parked_keys: u32::try_from(outcome.count).unwrap_or(u32::MAX),
    })
}

/// Takes keys out after they were redriven.
pub async fn unpark<E: Env>(
    broker: &Arc<Broker<E>>,
    request: UnparkKeysRequest,
) -> Result<UnparkKeysResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let keys = request.keys.into_iter().map(|key| GroupParkKey {
        topic: key.topic_id,
        partition: key.partition,
        key: key.key,
        offset: key.redriven_offset,
    });
    let action = Action::Unpark(GroupUnpark {
        keys: keys.collect(),
    });
    let timeout = route::timeout(request.timeout_ms);
    let outcome = propose(broker, &shard, (&request.group, action), timeout).await?;
    let results = outcome.items.into_iter().map(|item| UnparkResult {
        unparked: item.value.is_none(),
        last_offset: item.value,
    });
    Ok(UnparkKeysResponse {
        error: None,
        results: results.collect(),
    })
}

/// One page of parked keys.
pub async fn list<E: Env>(
    broker: &Arc<Broker<E>>,
    request: ListParkedKeysRequest,
) -> Result<ListParkedKeysResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let group = current(broker, &shard, &request.group).await?;
    let page = match request.page_size as usize {
        0 => DEFAULT_PAGE,
        size => size.min(LARGEST_PAGE),
    };
    let wanted: BTreeSet<TopicPartition> = request.partitions.iter().map(route::place).collect();
    let is_wanted = |tp: &TopicPartition| wanted.is_empty() || wanted.contains(tp);
    let from = read_token(&request.page_token)?;
    let all: Box<dyn Iterator<Item = (TopicPartition, &Bytes, &Parked)> + Send> = match &from {
        Some((tp, key)) => Box::new(group.parked.after(*tp, key)),
        None => Box::new(group.parked.iter()),
    };
    let mut all = all.filter(|(tp, _, _)| is_wanted(tp)).peekable();
    let keys: Vec<ParkedKey> = all.by_ref().take(page).map(to_wire).collect();
    let more = all.peek().is_some();
    let last = keys.last().filter(|_| more);
    let next_page_token = last.map(write_token).unwrap_or_default();
    Ok(ListParkedKeysResponse {
        error: None,
        next_page_token,
        unparked_epoch: group.unparked_epoch,
        keys,
    })
}

fn to_wire((tp, key, parked): (TopicPartition, &Bytes, &Parked)) -> ParkedKey {
    ParkedKey {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
        key: key.clone(),
        first_offset: parked.first.0,
        last_offset: parked.last.0,
        records: parked.records,
        parked_time_ms: parked.time.0,
    }
}

/// The last key of the page before.
fn write_token(key: &ParkedKey) -> Bytes {
    let mut token = BytesMut::with_capacity(PLACE_BYTES + key.key.len());
    token.put_u64(key.topic_id);
    token.put_u32(key.partition);
    token.put_slice(&key.key);
    token.freeze()
}

fn read_token(token: &Bytes) -> Result<Option<(TopicPartition, Bytes)>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut rest = token.clone();
    let wrong = || invalid("the page token is not one of this service's");
    let topic = rest.try_get_u64().map_err(|_| wrong())?;
    let partition = rest.try_get_u32().map_err(|_| wrong())?;
    let tp = TopicPartition::new(TopicId(topic), PartitionId(partition));
    Ok(Some((tp, rest)))
}
