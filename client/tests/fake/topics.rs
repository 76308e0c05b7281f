//! The fake's Topics service: what a client asks before it deletes.

use highwater_client::ErrorCode;
use highwater_proto::v1;
use tonic::{Request, Response, Status};

use super::{Node, error};

#[tonic::async_trait]
impl v1::topics_server::Topics for Node {
    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let request = request.into_inner();
        if !request.dry_run {
            return Err(Status::unimplemented("not by the fake"));
        }
        let state = self.state.lock();
        let topic = state.topics.get(&request.name);
        let topic = topic.map(|topic| v1::TopicSummary {
            id: topic.id,
            name: request.name,
            partitions: topic.partitions.len() as u32,
            replication_factor: topic.replication_factor,
            ready: true,
        });
        let unknown = || error(ErrorCode::UnknownTopic, None);
        Ok(Response::new(v1::DeleteTopicResponse {
            error: topic.is_none().then(unknown),
            topic,
        }))
    }
    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let topic = state.topics.get_mut(&request.name);
        let unknown = topic
            .is_none()
            .then(|| error(ErrorCode::UnknownTopic, None));
        if let Some(topic) = topic {
            topic.configs.extend(request.set);
        }
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(Response::new(v1::AlterTopicResponse {
            error: unknown,
            ..Default::default()
        }))
    }
    async fn add_partitions(
        &self,
        _: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn delete_records(
        &self,
        _: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
}
