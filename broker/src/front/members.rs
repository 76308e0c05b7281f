//! The internal door for members: who comes in, and what a shard's leader is asked to change.

use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::internal::members_server::Members;
use highwater_proto::internal::{JoinRequest, JoinResponse, ReshapeRequest, ReshapeResponse};
use tonic::{Request, Response, Status};

use crate::control::{members, peers};
use crate::node::Broker;

/// The service over one broker.
pub struct MembersService<E: Env>(pub Arc<Broker<E>>);

#[tonic::async_trait]
impl<E: Env> Members for MembersService<E> {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let answer = members::join(&self.0, request.into_inner()).await;
        Ok(Response::new(answer))
    }

    async fn reshape(
        &self,
        request: Request<ReshapeRequest>,
    ) -> Result<Response<ReshapeResponse>, Status> {
        peers::admit(&self.0.membership, request.metadata())?;
        let answer = members::serve(&self.0, request.into_inner()).await;
        Ok(Response::new(answer))
    }
}
