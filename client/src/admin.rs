//! Administrative calls: topics, the cluster, leaders.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::time::Duration;

use highwater_proto::v1::{self, admin_client::AdminClient};
use highwater_proto::{NodeId, ShardId, TopicId};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{AdminError, ErrorCode};
use crate::rpc::{self, CallFailure};

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: u32,
    replication_factor: u32,
    configs: BTreeMap<String, String>,
    validate_only: bool,
}

impl NewTopic {
    /// A topic with the cluster's defaults.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
    /// How many partitions; 0: the cluster's default.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }
    /// 1, 3 or 5; 0: the cluster's default.
    #[must_use]
    pub fn replication_factor(mut self, factor: u32) -> Self {
        self.replication_factor = factor;
        self
    }
    /// A configuration key by Kafka's name, such as `retention.ms`.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(key.into(), value.into());
        self
    }
    /// Only checks whether it could be created.
    #[must_use]
    pub fn validate_only(mut self, only: bool) -> Self {
        self.validate_only = only;
        self
    }
}

/// Administrative calls of a client, each with its deadline.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(crate) client: Client,
    pub(crate) timeout: Duration,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        let timeout = client.inner.request_timeout;
        Self { client, timeout }
    }
    /// Bound of each call with its retries. Default: the client's request timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
    pub(crate) fn millis(&self) -> u32 {
        u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX)
    }

    /// Creates a topic and waits until it is ready. A topic of that name that an earlier attempt
    /// of this very call may have created counts as created, if it looks as asked for. This client, and
    /// those cloned from it, never again take an earlier topic of that name for it.
    ///
    /// Not cancellation-safe: dropped, the topic may or may not be created.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::TopicExists`], [`ErrorCode::InvalidTopicName`],
    /// [`ErrorCode::InvalidConfig`], [`ErrorCode::NotEnoughBrokers`] and others;
    /// [`AdminError::Unknown`] when no verdict came in time.
    pub fn create_topic(
        &self,
        topic: NewTopic,
    ) -> BoxFuture<'_, Result<v1::TopicMetadata, AdminError>> {
        async move {
            let request = v1::CreateTopicRequest {
                name: topic.name.clone(),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: topic.configs.clone().into_iter().collect(),
                validate_only: topic.validate_only,
                timeout_ms: self.millis(),
            };
            let created = self.call(|channel| {
                let request = request.clone();
                async move { AdminClient::new(channel).create_topic(request).await }
            });
            let created = match created.await {
                Ok(response) => response.topic.unwrap_or_default(),
                Err(CallFailure {
                    cause,
                    maybe_done: true,
                }) if cause.code() == Some(ErrorCode::TopicExists) => {
                    let found = self.alike(&topic).await;
                    found.ok_or(AdminError::Unknown(cause))?
                }
                Err(failure) => return Err(write_error(failure)),
            };
            if !topic.validate_only {
                let cluster = &self.client.inner.cluster;
                cluster.at_least(&topic.name, TopicId(created.id));
            }
            Ok(created)
        }
        .boxed()
    }

    /// The topic that exists under this name, if it looks as asked for.
    async fn alike(&self, topic: &NewTopic) -> Option<v1::TopicMetadata> {
        let exists = self.find_topic(&topic.name).await.ok()?;
        let described = self.describe_topic(&topic.name).await.ok()?;
        // Whoever describes it may not know yet that the one before is gone.
        let it = described.topic.filter(|found| found.id == exists.id)?;
        looks_alike(&it, topic).then_some(it)
    }

    /// One page of topics by name: give an empty token first, then the answer's, until it is
    /// empty. `page_size` 0 takes the broker's. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn list_topics(
        &self,
        name_contains: &str,
        page_size: u32,
        page_token: &str,
    ) -> Result<v1::ListTopicsResponse, AdminError> {
        let request = v1::ListTopicsRequest {
            page_size,
            page_token: page_token.to_owned(),
            name_contains: name_contains.to_owned(),
        };
        let listed = self.call(|channel| {
            let request = request.clone();
            async move { AdminClient::new(channel).list_topics(request).await }
        });
        listed.await.map_err(read_error)
    }

    /// Every topic whose name contains `name_contains`, page by page. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn all_topics(
        &self,
        name_contains: &str,
    ) -> Result<Vec<v1::TopicSummary>, AdminError> {
        let mut topics = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.list_topics(name_contains, 0, &token).await?;
            topics.extend(page.topics);
            // A broker that repeats its token would keep us here for ever.
            if page.next_page_token.is_empty() || page.next_page_token == token {
                return Ok(topics);
            }
            token = page.next_page_token;
        }
    }

    /// A topic with the state of its partitions. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::UnknownTopic`] and others.
    pub fn describe_topic<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<v1::DescribeTopicResponse, AdminError>> {
        async move {
            let described = self.call(|channel| {
                let request = v1::DescribeTopicRequest {
                    name: name.to_owned(),
                };
                async move { AdminClient::new(channel).describe_topic(request).await }
            });
            described.await.map_err(read_error)
        }
        .boxed()
    }

    /// Brokers, shards and problems, as the broker that answers sees them. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] when none answered in time.
    pub fn describe_cluster(
        &self,
    ) -> BoxFuture<'_, Result<v1::DescribeClusterResponse, AdminError>> {
        async move {
            let described = self.call(|channel| async move {
                AdminClient::new(channel)
                    .describe_cluster(v1::DescribeClusterRequest {})
                    .await
            });
            described.await.map_err(read_error)
        }
        .boxed()
    }

    /// Moves a shard's leadership to a voter that is caught up. Not cancellation-safe: dropped,
    /// it may or may not move.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn transfer_leader(&self, shard: ShardId, to: NodeId) -> Result<(), AdminError> {
        let request = v1::TransferLeaderRequest {
            shard: shard.0,
            to_broker: to.0,
            timeout_ms: self.millis(),
        };
        let moved =
            self.call(
                |channel| async move { AdminClient::new(channel).transfer_leader(request).await },
            );
        moved.await.map(|_| ()).map_err(write_error)
    }

    pub(crate) async fn call<T, F, Fut>(&self, attempt: F) -> Result<T, CallFailure>
    where
        T: rpc::Answer,
        F: FnMut(tonic::transport::Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        rpc::call(&self.client.inner.cluster, None, self.deadline(), attempt).await
    }
}

fn looks_alike(found: &v1::TopicMetadata, wanted: &NewTopic) -> bool {
    let partitions = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
    (wanted.partitions == 0 || partitions == wanted.partitions)
        && (wanted.replication_factor == 0 || found.replication_factor == wanted.replication_factor)
        && wanted
            .configs
            .iter()
            .all(|(key, value)| found.configs.get(key) == Some(value))
}

pub(crate) fn write_error(failure: CallFailure) -> AdminError {
    if failure.maybe_done {
        AdminError::Unknown(failure.cause)
    } else {
        AdminError::Rejected(failure.cause)
    }
}

/// A read leaves nothing behind: its failure is never in doubt.
pub(crate) fn read_error(failure: CallFailure) -> AdminError {
    AdminError::Rejected(failure.cause)
}
