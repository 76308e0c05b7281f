//! The fake's Metadata and Admin services.

use std::time::Duration;

use highwater_client::ErrorCode;
use highwater_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::produce::Answers;
use super::{Node, error};

#[tonic::async_trait]
impl v1::metadata_server::Metadata for Node {
    type WatchStream = Answers<v1::MetadataUpdate>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let topics = request.into_inner().topics;
        let (updates, stream) = mpsc::channel(8);
        let node = self.clone();
        tokio::spawn(async move {
            let mut changed = node.changed.subscribe();
            let mut last = None;
            loop {
                changed.borrow_and_update();
                let update = node.update(&topics);
                if last.as_ref() != Some(&update) {
                    if updates.send(Ok(update.clone())).await.is_err() {
                        return;
                    }
                    last = Some(update);
                }
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = updates.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Node {
    fn update(&self, topics: &[String]) -> v1::MetadataUpdate {
        let state = self.state.lock();
        let (known, missing): (Vec<_>, Vec<_>) = topics
            .iter()
            .cloned()
            .partition(|name| state.topics.contains_key(name));
        v1::MetadataUpdate {
            cluster_id: "fake".into(),
            brokers: state.brokers(),
            topics: known.iter().map(|name| state.metadata(name)).collect(),
            missing_topics: missing,
        }
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Node {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let failed = |code| v1::CreateTopicResponse {
            error: Some(error(code, None)),
            topic: None,
        };
        if state.topics.contains_key(&request.name) {
            return Ok(Response::new(failed(ErrorCode::TopicExists)));
        }
        let fault = state.create_faults.pop_front();
        // Only an answer that is lost leaves a topic behind.
        if let Some(code) = fault.filter(|code| *code != ErrorCode::TimedOut) {
            return Ok(Response::new(failed(code)));
        }
        let factor = request.replication_factor.max(1);
        state.create(
            &request.name,
            request.partitions.max(1),
            factor,
            request.configs.into_iter().collect(),
        );
        let topic = state.metadata(&request.name);
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        let answer = match fault {
            Some(code) => failed(code),
            None => v1::CreateTopicResponse {
                error: None,
                topic: Some(topic),
            },
        };
        Ok(Response::new(answer))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        /// Small, so that paging is used.
        const PAGE: usize = 2;
        let request = request.into_inner();
        let state = self.state.lock();
        let after = |name: &&String| **name > request.page_token;
        let matching = |name: &&String| name.contains(&request.name_contains);
        let mut names: Vec<_> = state.topics.keys().filter(after).filter(matching).collect();
        let more = names.len() > PAGE;
        names.truncate(PAGE);
        let next_page_token = names
            .last()
            .filter(|_| more)
            .map_or(String::new(), |name| (*name).clone());
        let topics = names
            .into_iter()
            .map(|name| v1::TopicSummary {
                id: state.topics[name].id,
                name: name.clone(),
                partitions: state.topics[name].partitions.len() as u32,
                replication_factor: state.topics[name].replication_factor,
                ready: true,
            })
            .collect();
        Ok(Response::new(v1::ListTopicsResponse {
            topics,
            next_page_token,
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let state = self.state.lock();
        let Some(topic) = state.topics.get(&name) else {
            let error = Some(error(ErrorCode::UnknownTopic, None));
            return Ok(Response::new(v1::DescribeTopicResponse {
                error,
                ..Default::default()
            }));
        };
        let status = |(number, p): (usize, &super::Partition)| v1::PartitionStatus {
            partition: number as u32,
            high_watermark: p.end(),
            leader_epoch: 1,
            ..Default::default()
        };
        let partitions = topic.partitions.iter().enumerate().map(status).collect();
        let topic = Some(state.metadata(&name));
        Ok(Response::new(v1::DescribeTopicResponse {
            error: None,
            topic,
            partitions,
        }))
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let state = self.state.lock();
        Ok(Response::new(v1::DescribeClusterResponse {
            cluster_id: "fake".into(),
            metadata_leader: Some(1),
            brokers: state.brokers(),
            topics: state.topics.len() as u64,
            ..Default::default()
        }))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        // Never answers in time: what a client does about it is what is looked at.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(Response::new(v1::TransferLeaderResponse { error: None }))
    }
}
