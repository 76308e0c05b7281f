//! The service `Admin`: topics, the cluster, leaders.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply};
use highwater_proto::v1::admin_server::Admin;
use highwater_proto::v1::{
    CreateTopicRequest, CreateTopicResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeTopicRequest, DescribeTopicResponse, Error, ErrorCode, ListTopicsRequest,
    ListTopicsResponse, TopicSummary, TransferLeaderRequest, TransferLeaderResponse,
};
use highwater_proto::{NodeId, ShardId, TopicId};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{convert, describe, view};
use crate::control::proposer::MetadataError;
use crate::control::transfer;
use crate::node::{Broker, health};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_PAGE: usize = 1000;
const LARGEST_PAGE: usize = 10_000;

/// The service over one broker.
pub struct AdminService<E: Env>(pub Arc<Broker<E>>);

#[tonic::async_trait]
impl<E: Env> Admin for AdminService<E> {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let response = match create(&self.0, request.into_inner()).await {
            Ok(topic) => CreateTopicResponse { error: None, topic },
            Err(error) => CreateTopicResponse {
                error: Some(error),
                topic: None,
            },
        };
        Ok(Response::new(response))
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let page = match request.page_size as usize {
            0 => DEFAULT_PAGE,
            size => size.min(LARGEST_PAGE),
        };
        let image = self.0.cluster.image();
        let found = image.topics_page(&request.page_token, &request.name_contains, page);
        let topics = found.topics.iter().map(|topic| TopicSummary {
            id: topic.id().0,
            name: topic.name().to_owned(),
            partitions: topic.partition_count(),
            replication_factor: topic.replication_factor(),
            ready: topic.is_ready(),
        });
        let topics = topics.collect();
        let next_page_token = found.next.unwrap_or_default();
        Ok(Response::new(ListTopicsResponse {
            topics,
            next_page_token,
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let Some(topic) = self.0.cluster.image().topic_by_name(&name).cloned() else {
            let text = format!("no topic is named '{name}'; `highwater topic list` shows all");
            let error = Some(convert::error(ErrorCode::UnknownTopic, text, None));
            return Ok(Response::new(DescribeTopicResponse {
                error,
                ..Default::default()
            }));
        };
        let partitions = describe::topic(&self.0, &topic).await;
        let topic = Some(view::topic(&self.0.cluster, &topic));
        Ok(Response::new(DescribeTopicResponse {
            error: None,
            topic,
            partitions,
        }))
    }

    async fn describe_cluster(
        &self,
        _request: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        let image = self.0.cluster.image();
        // In a statement of its own: what is borrowed is locked until the statement's end, and the
        // checks below borrow it too, which never ends when a writer waits in between.
        let leader = self.0.metadata.group().status().borrow().leader;
        let response = DescribeClusterResponse {
            cluster_id: image.cluster_id().unwrap_or_default().to_owned(),
            metadata_leader: leader.map(|node| node.0),
            brokers: view::brokers(&self.0.cluster),
            shards: view::shards(&self.0.cluster),
            topics: image.topic_count() as u64,
            partitions: image.topics().map(|t| u64::from(t.partition_count())).sum(),
            problems: health::problems(&self.0),
        };
        Ok(Response::new(response))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let (shard, to) = (ShardId(request.shard), NodeId(request.to_broker));
        let moved = match self.0.cluster.leader(shard).and_then(|info| info.node) {
            Some(from) if from == to => Ok(()),
            Some(from) => transfer::request(&self.0, shard, from, to).await,
            None => Err(format!("shard {shard} has no leader right now")),
        };
        let error = moved
            .err()
            .map(|text| convert::error(ErrorCode::LeaderUnavailable, text, None));
        Ok(Response::new(TransferLeaderResponse { error }))
    }
}

async fn create<E: Env>(
    broker: &Arc<Broker<E>>,
    request: CreateTopicRequest,
) -> Result<Option<highwater_proto::v1::TopicMetadata>, Error> {
    let deadline = Instant::now()
        + match request.timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)),
        };
    let defaults = &broker.config.defaults;
    let or = |asked: u32, default: u32| if asked == 0 { default } else { asked };
    let command = MetadataCommand::CreateTopic {
        name: request.name,
        partitions: or(request.partitions, defaults.partitions),
        replication_factor: or(
            request.replication_factor,
            broker.default_replication_factor(),
        ),
        configs: request.configs.into_iter().collect(),
    };
    if request.validate_only {
        return preview(broker, &command).map(Some);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    match broker.metadata.propose(&command, left).await {
        Ok(MetadataReply::TopicCreated { topic }) => ready(broker, topic, deadline).await.map(Some),
        Ok(MetadataReply::Refused(refusal)) => Err(refused(refusal)),
        Ok(other) => Err(convert::error(
            ErrorCode::Internal,
            format!("unexpected {other:?}"),
            None,
        )),
        Err(MetadataError::Unavailable(text)) => {
            Err(convert::error(ErrorCode::ClusterNotReady, text, None))
        }
        Err(MetadataError::Unknown(text)) => {
            let text = format!("the topic may or may not have been created: {text}");
            Err(convert::error(ErrorCode::TimedOut, text, None))
        }
    }
}

/// The topic as it would be.
fn preview<E: Env>(
    broker: &Broker<E>,
    command: &MetadataCommand,
) -> Result<highwater_proto::v1::TopicMetadata, Error> {
    let mut next = highwater_metadata::Image::clone(&broker.cluster.image());
    match next.apply(command) {
        MetadataReply::TopicCreated { topic } => {
            let topic = next
                .topic(topic)
                .map(|topic| view::whole_topic(&broker.cluster, topic));
            let shown = topic.unwrap_or_default();
            Ok(highwater_proto::v1::TopicMetadata { id: 0, ..shown })
        }
        MetadataReply::Refused(refusal) => Err(refused(refusal)),
        other => Err(convert::error(
            ErrorCode::Internal,
            format!("unexpected {other:?}"),
            None,
        )),
    }
}

fn refused(refusal: highwater_metadata::Refusal) -> Error {
    Error {
        code: refusal.code as i32,
        message: refusal.message,
        leader: None,
    }
}

/// Waits until the new topic's partitions are made.
async fn ready<E: Env>(
    broker: &Arc<Broker<E>>,
    id: TopicId,
    deadline: Instant,
) -> Result<highwater_proto::v1::TopicMetadata, Error> {
    let mut changes = broker.cluster.changes();
    loop {
        changes.borrow_and_update();
        if let Some(topic) = broker.cluster.image().topic(id)
            && topic.is_ready()
        {
            return Ok(view::topic(&broker.cluster, topic));
        }
        if tokio::time::timeout_at(deadline, changes.changed())
            .await
            .is_err()
        {
            let text = "the topic was created, but not all its partitions have a leader yet; it \
                        becomes ready as soon as they do";
            return Err(convert::error(ErrorCode::TopicNotReady, text, None));
        }
    }
}
