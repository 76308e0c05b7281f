//! Deleting groups and expelling members.

use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupDelete, GroupRemove};
use highwater_proto::v1::{
    DeleteGroupRequest, DeleteGroupResponse, Error, RemoveMembersRequest, RemoveMembersResponse,
};

use super::route::{self, coordinated, invalid, propose};
use crate::node::Broker;

/// Forgets a group.
pub async fn delete<E: Env>(
    broker: &Arc<Broker<E>>,
    request: DeleteGroupRequest,
) -> Result<DeleteGroupResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let action = Action::Delete(GroupDelete {});
    let timeout = route::timeout(request.timeout_ms);
    propose(broker, &shard, (&request.group, action), timeout).await?;
    Ok(DeleteGroupResponse::default())
}

/// Expels members.
pub async fn remove_members<E: Env>(
    broker: &Arc<Broker<E>>,
    request: RemoveMembersRequest,
) -> Result<RemoveMembersResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    if request.member_ids.is_empty() && request.instance_ids.is_empty() && !request.all {
        return Err(invalid("name members or instances, or say all"));
    }
    let action = Action::Remove(GroupRemove {
        member_ids: request.member_ids,
        instance_ids: request.instance_ids,
        all: request.all,
        ..GroupRemove::default()
    });
    let timeout = route::timeout(request.timeout_ms);
    let outcome = propose(broker, &shard, (&request.group, action), timeout).await?;
    Ok(RemoveMembersResponse {
        error: None,
        removed: u32::try_from(outcome.count).unwrap_or(u32::MAX),
    })
}
