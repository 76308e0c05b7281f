//! The service `Groups`: wire types to commands and back. What the calls mean is in `groups.proto`.

mod admin;
mod describe;
pub mod list;
mod members;
mod offsets;
mod parked;
pub mod reset;
mod route;

use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::v1::groups_server::Groups;
use highwater_proto::v1::{
    CommitOffsetsRequest, CommitOffsetsResponse, CopyGroupRequest, CopyGroupResponse,
    DeleteGroupRequest, DeleteGroupResponse, DescribeGroupRequest, DescribeGroupResponse, Error,
    FetchOffsetsRequest, FetchOffsetsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    GroupHeartbeatRequest, GroupHeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    ListParkedKeysRequest, ListParkedKeysResponse, ParkKeysRequest, ParkKeysResponse,
    RemoveMembersRequest, RemoveMembersResponse, ResetOffsetsRequest, ResetOffsetsResponse,
    UnparkKeysRequest, UnparkKeysResponse,
};
use tonic::{Request, Response, Status};

use crate::node::Broker;
use crate::node::connections::Connection;

/// The service over one broker.
pub struct GroupsService<E: Env>(pub Arc<Broker<E>>);

/// A response that can carry an error.
trait Answer: Default {
    fn refused(error: Error) -> Self;
}

macro_rules! answers {
    ($($Response:ty),* $(,)?) => {
        $(impl Answer for $Response {
            // Some of them carry nothing but an error.
            #[allow(clippy::needless_update)]
            fn refused(error: Error) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        })*
    };
}

answers!(
    JoinGroupResponse,
    GroupHeartbeatResponse,
    LeaveGroupResponse,
    CommitOffsetsResponse,
    FetchOffsetsResponse,
    ParkKeysResponse,
    UnparkKeysResponse,
    ListParkedKeysResponse,
    DescribeGroupResponse,
    DeleteGroupResponse,
    ResetOffsetsResponse,
    CopyGroupResponse,
    RemoveMembersResponse,
);

/// Errors of ours are answers, not failures of the call.
fn answer<T: Answer>(outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    Ok(Response::new(outcome.unwrap_or_else(T::refused)))
}

#[tonic::async_trait]
impl<E: Env> Groups for GroupsService<E> {
    async fn find_coordinator(
        &self,
        request: Request<FindCoordinatorRequest>,
    ) -> Result<Response<FindCoordinatorResponse>, Status> {
        let groups = request.into_inner().groups.into_iter();
        let coordinators = groups.map(|group| route::coordinator(&self.0, group));
        let coordinators = coordinators.collect();
        Ok(Response::new(FindCoordinatorResponse { coordinators }))
    }

    async fn join(
        &self,
        request: Request<JoinGroupRequest>,
    ) -> Result<Response<JoinGroupResponse>, Status> {
        let connection = request.extensions().get::<Connection>();
        let host = connection.map(|connection| connection.peer.ip().to_string());
        let host = host.unwrap_or_default();
        answer(members::join(&self.0, request.into_inner(), host).await)
    }

    async fn heartbeat(
        &self,
        request: Request<GroupHeartbeatRequest>,
    ) -> Result<Response<GroupHeartbeatResponse>, Status> {
        answer(members::heartbeat(&self.0, request.into_inner()).await)
    }

    async fn leave(
        &self,
        request: Request<LeaveGroupRequest>,
    ) -> Result<Response<LeaveGroupResponse>, Status> {
        answer(members::leave(&self.0, request.into_inner()).await)
    }

    async fn commit_offsets(
        &self,
        request: Request<CommitOffsetsRequest>,
    ) -> Result<Response<CommitOffsetsResponse>, Status> {
        answer(offsets::commit(&self.0, request.into_inner()).await)
    }

    async fn fetch_offsets(
        &self,
        request: Request<FetchOffsetsRequest>,
    ) -> Result<Response<FetchOffsetsResponse>, Status> {
        answer(offsets::fetch(&self.0, request.into_inner()).await)
    }

    async fn park_keys(
        &self,
        request: Request<ParkKeysRequest>,
    ) -> Result<Response<ParkKeysResponse>, Status> {
        answer(parked::park(&self.0, request.into_inner()).await)
    }

    async fn unpark_keys(
        &self,
        request: Request<UnparkKeysRequest>,
    ) -> Result<Response<UnparkKeysResponse>, Status> {
        answer(parked::unpark(&self.0, request.into_inner()).await)
    }

    async fn list_parked_keys(
        &self,
        request: Request<ListParkedKeysRequest>,
    ) -> Result<Response<ListParkedKeysResponse>, Status> {
        answer(parked::list(&self.0, request.into_inner()).await)
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        Ok(Response::new(
            list::all(&self.0, request.into_inner()).await,
        ))
    }

    async fn describe_group(
        &self,
        request: Request<DescribeGroupRequest>,
    ) -> Result<Response<DescribeGroupResponse>, Status> {
        answer(describe::describe(&self.0, request.into_inner()).await)
    }

    async fn delete_group(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        answer(admin::delete(&self.0, request.into_inner()).await)
    }

    async fn reset_offsets(
        &self,
        request: Request<ResetOffsetsRequest>,
    ) -> Result<Response<ResetOffsetsResponse>, Status> {
        answer(reset::reset(&self.0, request.into_inner()).await)
    }

    async fn copy_group(
        &self,
        request: Request<CopyGroupRequest>,
    ) -> Result<Response<CopyGroupResponse>, Status> {
        answer(reset::copy(&self.0, request.into_inner()).await)
    }

    async fn remove_members(
        &self,
        request: Request<RemoveMembersRequest>,
    ) -> Result<Response<RemoveMembersResponse>, Status> {
        answer(admin::remove_members(&self.0, request.into_inner()).await)
    }
}
