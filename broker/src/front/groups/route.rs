//! From a group's name to its shard, and from the broker's errors to those of the protocol.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::ShardId;
use highwater_proto::internal::group_command::Action;
use highwater_proto::v1::{Coordinator, Error, ErrorCode, PartitionRef};
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use highwater_shard::groups::{Group, GroupOutcome, GroupRefusal};
use prost::Message;

use crate::front::convert;
use crate::groups::{self, ProposeFailure};
use crate::node::Broker;
use crate::runtime::Shard;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A group's name, in characters.
const LONGEST_NAME: usize = 249;

pub fn timeout(ms: u32) -> Duration {
    match ms {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(u64::from(ms)),
    }
}

pub fn invalid(text: impl Into<String>) -> Error {
    convert::error(ErrorCode::InvalidRequest, text, None)
}

/// # Errors
/// Names that no group can have.
pub fn check_name(group: &str) -> Result<(), Error> {
    // Bounded in bytes by the state; what has more bytes than characters is bounded sooner.
    if group.is_empty() || group.len() > LONGEST_NAME || group.chars().any(char::is_control) {
        let text = format!(
            "a group's name has 1 to {LONGEST_NAME} bytes, none of them a control character"
        );
        return Err(convert::error(ErrorCode::InvalidGroupName, text, None));
    }
    Ok(())
}

pub fn place(partition: &PartitionRef) -> TopicPartition {
    TopicPartition::new(
        TopicId(partition.topic_id),
        PartitionId(partition.partition),
    )
}

/// Who coordinates a group.
pub fn coordinator<E: Env>(broker: &Broker<E>, group: String) -> Coordinator {
    let mut found = Coordinator {
        group,
        ..Coordinator::default()
    };
    if let Err(error) = check_name(&found.group) {
        found.error = Some(error);
        return found;
    }
    match broker.cluster.image().group_shard(&found.group) {
        None => found.error = Some(no_cluster()),
        Some(shard) => {
            found.shard = shard.0;
            found.leader = broker.router.hint(shard);
            if found.leader.is_none() {
                found.error = Some(elsewhere(broker, &found.group, Some(shard)));
            }
        }
    }
    found
}

fn no_cluster() -> Error {
    let text = "the cluster is not formed yet";
    convert::error(ErrorCode::ClusterNotReady, text, None)
}

fn elsewhere<E: Env>(broker: &Broker<E>, group: &str, shard: Option<ShardId>) -> Error {
    let Some(shard) = shard else {
        return no_cluster();
    };
    match broker.router.hint(shard) {
        // This very broker is said to lead it: it does not know yet that it does, or still does.
        Some(hint) if hint.broker_id != broker.node_id.0 => {
            let text = format!("broker {} coordinates group '{group}'", hint.broker_id);
            convert::error(ErrorCode::NotLeader, text, Some(hint))
        }
        _ => taking_over(group),
    }
}

fn taking_over(group: &str) -> Error {
    let text = format!(
        "group '{group}' has no coordinator right now; an election takes under two seconds"
    );
    convert::error(ErrorCode::LeaderUnavailable, text, None)
}

/// The shard of a group that this broker coordinates.
///
/// # Errors
/// Where else it is, or a bad name.
pub fn coordinated<E: Env>(broker: &Broker<E>, group: &str) -> Result<Arc<Shard<E::Disk>>, Error> {
    check_name(group)?;
    let shard = broker.router.group(group);
    let shard = shard.map_err(|shard| elsewhere(broker, group, shard))?;
    // What earlier coordinators decided may not all be applied here yet.
    if !shard.coordinator.is_ready() {
        return Err(taking_over(group));
    }
    Ok(shard)
}

/// The group as of every change acknowledged before the call: a majority confirms that this broker
/// still leads.
///
/// # Errors
/// It does not, or there is no such group.
pub async fn current<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    group: &str,
) -> Result<Arc<Group>, Error> {
    if shard.group.read_barrier().await.is_err() {
        return Err(elsewhere(broker, group, Some(shard.id)));
    }
    shard
        .groups
        .state(group)
        .ok_or_else(|| refused(group, GroupRefusal::UnknownGroup))
}

/// Proposes a command to a group and waits for the verdict.
///
/// # Errors
/// Its refusal, or why there is no verdict.
pub async fn propose<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    (group, action): (&str, Action),
    timeout: Duration,
) -> Result<GroupOutcome, Error> {
    let bytes = {
        let mut wire = highwater_shard::GroupCommand {
            group: group.to_owned(),
            ..Default::default()
        };
        wire.action = Some(action.clone());
        wire.encoded_len()
    };
    let admitted = broker.gate.admit_bookkeeping(bytes).await;
    let _admitted = admitted.map_err(|_closed| {
        convert::error(ErrorCode::ShuttingDown, "this broker is stopping", None)
    })?;
    let decided = groups::propose(broker, shard, (group, action), timeout);
    match broker.producing.track_future(decided).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(refusal)) => Err(refused(group, refusal)),
        Err(failure) => Err(failed(broker, shard, group, &failure)),
    }
}

fn failed<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    group: &str,
    failure: &ProposeFailure,
) -> Error {
    let with = |code| convert::error(code, format!("group '{group}': {failure}"), None);
    match failure {
        ProposeFailure::NotLeader => elsewhere(broker, group, Some(shard.id)),
        ProposeFailure::Busy => with(ErrorCode::Overloaded),
        ProposeFailure::OldRelease(_) => with(ErrorCode::Unsupported),
        ProposeFailure::Unknown(_) => with(ErrorCode::LeadershipLost),
        ProposeFailure::TimedOut => with(ErrorCode::TimedOut),
    }
}

/// The stable code of what apply refuses.
pub fn code(refusal: GroupRefusal) -> ErrorCode {
    match refusal {
        GroupRefusal::UnknownGroup => ErrorCode::UnknownGroup,
        GroupRefusal::UnknownMember => ErrorCode::UnknownMember,
        GroupRefusal::FencedMember => ErrorCode::FencedMember,
        GroupRefusal::FencedInstance => ErrorCode::FencedInstance,
        GroupRefusal::NotEmpty => ErrorCode::GroupNotEmpty,
        GroupRefusal::Exists => ErrorCode::GroupExists,
        GroupRefusal::GroupFull => ErrorCode::GroupFull,
        GroupRefusal::TooManyGroups => ErrorCode::TooManyGroups,
        GroupRefusal::CommitBehind => ErrorCode::CommitBehind,
        GroupRefusal::MetadataTooLarge => ErrorCode::MetadataTooLarge,
        GroupRefusal::ParkedFull => ErrorCode::ParkedFull,
        GroupRefusal::Limit => ErrorCode::GroupLimit,
        GroupRefusal::Unsupported => ErrorCode::Unsupported,
        GroupRefusal::Stale | GroupRefusal::Incomplete => ErrorCode::InvalidRequest,
    }
}

pub fn refused(group: &str, refusal: GroupRefusal) -> Error {
    convert::error(code(refusal), format!("group '{group}': {refusal}"), None)
}
