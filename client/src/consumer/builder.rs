//! Settings of a consumer, and where its partitions begin.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::{Offset, PartitionId, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::part::OutOfRange;
use super::shared::{self, ConsumerConfig, ReadFrom, Shared};
use super::{Consumer, Start};
use crate::client::Client;
use crate::error::{ConsumeError, OffsetsError};
use crate::offsets::{self, At};

#[derive(Debug)]
struct Wanted {
    topic: String,
    /// Empty: all.
    partitions: Vec<u32>,
    start: Option<Start>,
}

/// Settings of a [`Consumer`].
#[derive(Debug)]
pub struct ConsumerBuilder {
    client: Client,
    config: ConsumerConfig,
    start: Start,
    wanted: Vec<Wanted>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let config = ConsumerConfig {
            credit_bytes: 8 << 20,
            max_fetch_bytes: 1 << 20,
            read_from: ReadFrom::Leader,
            out_of_range: OutOfRange::Error,
        };
        Self {
            client,
            config,
            start: Start::default(),
            wanted: Vec::new(),
        }
    }
    /// All partitions of a topic, as many as it has now.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.wanted.push(Wanted {
            topic: topic.into(),
            partitions: Vec::new(),
            start: None,
        });
        self
    }
    /// Some partitions of a topic.
    #[must_use]
    pub fn partitions(
        mut self,
        topic: impl Into<String>,
        partitions: impl IntoIterator<Item = u32>,
    ) -> Self {
        let partitions: Vec<u32> = partitions.into_iter().collect();
        if !partitions.is_empty() {
            self.wanted.push(Wanted {
                topic: topic.into(),
                partitions,
                start: None,
            });
        }
        self
    }
    /// One partition, from a start of its own.
    #[must_use]
    pub fn assign(mut self, topic: impl Into<String>, partition: u32, start: Start) -> Self {
        let (topic, partitions) = (topic.into(), vec![partition]);
        self.wanted.push(Wanted {
            topic,
            partitions,
            start: Some(start),
        });
        self
    }
    /// Where partitions without a start of their own begin. Default: the first record kept.
    #[must_use]
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
    /// Bytes that each broker may send ahead of the application. Default 8 MiB. One batch may
    /// come on top.
    #[must_use]
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.config.credit_bytes = bytes.max(1);
        self
    }
    /// Bytes of one response of a broker. Default 1 MiB; a larger batch still comes, alone.
    #[must_use]
    pub fn max_fetch_bytes(mut self, bytes: u32) -> Self {
        self.config.max_fetch_bytes = bytes.max(1);
        self
    }
    /// The leader (default), or a named broker.
    #[must_use]
    pub fn read_from(mut self, from: ReadFrom) -> Self {
        self.config.read_from = from;
        self
    }
    /// What to do when an offset is not in the log. Default: an error.
    #[must_use]
    pub fn out_of_range(mut self, policy: OutOfRange) -> Self {
        self.config.out_of_range = policy;
        self
    }

    /// Looks up topics and start offsets, within the client's request timeout, and begins to
    /// fetch. Cancellation-safe.
    ///
    /// # Errors
    /// [`ConsumeError::Offsets`]: unknown topic or partition, or no leader answered.
    pub fn build(self) -> BoxFuture<'static, Result<Consumer, ConsumeError>> {
        async move {
            let cluster = Arc::clone(&self.client.inner.cluster);
            let shared = Arc::new(Shared::new(Arc::clone(&cluster), self.config));
            let deadline = Instant::now() + self.client.inner.request_timeout;
            let mut topics = BTreeMap::new();
            for wanted in self.wanted {
                let failed = |cause| OffsetsError {
                    topic: wanted.topic.clone(),
                    cause,
                };
                let topic = cluster
                    .topic(&wanted.topic, deadline)
                    .await
                    .map_err(failed)?;
                let partitions: Vec<PartitionId> = if wanted.partitions.is_empty() {
                    (0..topic.partition_count()).map(PartitionId).collect()
                } else {
                    wanted.partitions.into_iter().map(PartitionId).collect()
                };
                let start = wanted.start.unwrap_or(self.start);
                let starts = resolve(&cluster, &wanted.topic, &partitions, start, deadline).await?;
                shared.read(|reader, _| {
                    for (partition, offset) in partitions.iter().zip(starts) {
                        let tp = TopicPartition::new(topic.id, *partition);
                        reader.assign(tp, Arc::clone(&topic.name), offset.0);
                    }
                });
                topics.insert(Arc::clone(&topic.name), topic.id);
            }
            let mut tasks = JoinSet::new();
            tasks.spawn(shared::keep(Arc::clone(&shared)));
            Ok(Consumer {
                client: self.client,
                shared,
                topics,
                decoding: None,
                _tasks: tasks,
            })
        }
        .boxed()
    }
}

pub(super) async fn resolve(
    cluster: &crate::cluster::Cluster,
    topic: &str,
    partitions: &[PartitionId],
    start: Start,
    deadline: Instant,
) -> Result<Vec<Offset>, OffsetsError> {
    let look = async |at: At| {
        let queries: Vec<_> = partitions
            .iter()
            .map(|&partition| (partition, at))
            .collect();
        let found = offsets::list(cluster, topic, &queries, deadline).await?;
        Ok::<Vec<Offset>, OffsetsError>(found.into_iter().map(|found| found.offset).collect())
    };
    Ok(match start {
        Start::Earliest => look(At::Earliest).await?,
        Start::Latest => look(At::Latest).await?,
        Start::Time(time) => look(At::Time(time)).await?,
        Start::Offset(offset) => {
            // Asked all the same: an unknown topic or partition is told now.
            look(At::Earliest).await?.iter().map(|_| offset).collect()
        }
        Start::AfterEarliest(count) => {
            let (first, end) = (look(At::Earliest).await?, look(At::Latest).await?);
            first
                .iter()
                .zip(end)
                .map(|(first, end)| first.plus(count).min(end))
                .collect()
        }
        Start::BeforeLatest(count) => {
            let (end, first) = (look(At::Latest).await?, look(At::Earliest).await?);
            let back = |end: Offset| Offset(end.0.saturating_sub(count));
            end.into_iter()
                .zip(first)
                .map(|(end, first)| back(end).max(first))
                .collect()
        }
    })
}
