//! Looks up offsets by rule (start, end, time) at the leaders of their partitions.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use highwater_proto::v1::{self, log_client::LogClient, offset_query};
use highwater_proto::{Offset, PartitionId, TimestampMs};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::cluster::Cluster;
use crate::connect::Purpose;
use crate::error::{Cause, CodeClass, OffsetsError, classify};
use crate::view::TopicView;

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first record kept.
    Earliest,
    /// The end: reaches every offset acknowledged before the call.
    Latest,
    /// The first record whose timestamp is at or after this; the end when there is none.
    Time(TimestampMs),
}

/// An offset that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
    /// Of the record found; absent for [`At::Latest`] and for a time after the last record.
    pub timestamp: Option<TimestampMs>,
}

impl Client {
    /// Looks up one offset in each of the partitions named, in their order, within the request
    /// timeout. Cancellation-safe.
    ///
    /// # Errors
    /// [`OffsetsError`]: unknown topic or partition, or no leader answered in time.
    pub async fn list_offsets(
        &self,
        topic: &str,
        queries: &[(PartitionId, At)],
    ) -> Result<Vec<FoundOffset>, OffsetsError> {
        let deadline = Instant::now() + self.inner.request_timeout;
        list(&self.inner.cluster, topic, queries, deadline).await
    }

    /// The same offset of every partition of a topic, by partition. Cancellation-safe.
    ///
    /// # Errors
    /// See [`Client::list_offsets`].
    pub async fn topic_offsets(
        &self,
        topic: &str,
        at: At,
    ) -> Result<Vec<FoundOffset>, OffsetsError> {
        let failed = |cause| OffsetsError {
            topic: topic.to_owned(),
            cause,
        };
        let partitions = self.topic(topic).await.map_err(failed)?.partition_count();
        let queries: Vec<_> = (0..partitions).map(|p| (PartitionId(p), at)).collect();
        self.list_offsets(topic, &queries).await
    }

    /// The end of every partition: a read up to here has seen all that was acknowledged before
    /// the call. Cancellation-safe.
    ///
    /// # Errors
    /// See [`Client::list_offsets`].
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<Offset>, OffsetsError> {
        let found = self.topic_offsets(topic, At::Latest).await?;
        Ok(found.into_iter().map(|found| found.offset).collect())
    }
}

pub(crate) fn list<'a>(
    cluster: &'a Cluster,
    topic: &'a str,
    queries: &'a [(PartitionId, At)],
    deadline: Instant,
) -> BoxFuture<'a, Result<Vec<FoundOffset>, OffsetsError>> {
    async move {
        let failed = |cause| OffsetsError {
            topic: topic.to_owned(),
            cause,
        };
        let view = cluster.topic(topic, deadline).await.map_err(failed)?;
        for (partition, _) in queries {
            if view.partition(*partition).is_none() {
                return Err(failed(Cause::UnknownPartition {
                    topic: topic.to_owned(),
                    partition: partition.0,
                    partitions: view.partition_count(),
                }));
            }
        }
        let mut found: BTreeMap<usize, FoundOffset> = BTreeMap::new();
        let mut failures: u32 = 0;
        cluster.called(1);
        loop {
            let last = round(cluster, &view, queries, &mut found, deadline)
                .await
                .map_err(failed)?;
            if found.len() == queries.len() {
                return Ok(found.into_values().collect());
            }
            failures = failures.saturating_add(1);
            let pause = cluster.pause(failures);
            if Instant::now() + pause >= deadline {
                return Err(failed(last));
            }
            sleep(pause).await;
            if !cluster.allowed(deadline).await {
                return Err(failed(last));
            }
        }
    }
    .boxed()
}

/// Asks every leader once for what is not found yet. Answers with the last trouble.
async fn round(
    cluster: &Cluster,
    topic: &Arc<TopicView>,
    queries: &[(PartitionId, At)],
    found: &mut BTreeMap<usize, FoundOffset>,
    deadline: Instant,
) -> Result<Cause, Cause> {
    let view = cluster.view();
    let mut last = Cause::Deadline("no partition has a leader".to_owned());
    let mut by_address: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (partition, _)) in queries.iter().enumerate() {
        let leader = view.leader(topic.id, *partition);
        let address = leader.and_then(|(node, _)| view.address(node));
        match address {
            Some(address) if !found.contains_key(&index) => {
                by_address.entry(address).or_default().push(index);
            }
            _ => {}
        }
    }
    let calls = by_address.into_iter().map(|(address, indexes)| async move {
        let asked = indexes.iter().filter_map(|&index| queries.get(index));
        let request = asked
            .map(|&(partition, at)| query(topic, partition, at))
            .collect();
        (indexes, ask(cluster, address, request, deadline).await)
    });
    for (indexes, answer) in join_all(calls).await {
        let results = match answer {
            Ok(results) => results,
            Err(cause) => {
                last = cause;
                continue;
            }
        };
        for (index, result) in indexes.into_iter().zip(results) {
            let Some(&(partition, _)) = queries.get(index) else {
                continue;
            };
            let Some(error) = &result.error else {
                found.insert(index, found_offset(partition, &result));
                continue;
            };
            if let Some(hint) = &error.leader {
                cluster.hint(topic.id, partition, hint);
            }
            last = Cause::broker(error);
            if classify(error.code()) == CodeClass::Fatal {
                return Err(last);
            }
        }
    }
    Ok(last)
}

async fn ask(
    cluster: &Cluster,
    address: &str,
    queries: Vec<v1::OffsetQuery>,
    deadline: Instant,
) -> Result<Vec<v1::OffsetResult>, Cause> {
    let channel = cluster
        .pool
        .channel(address, Purpose::Control)
        .map_err(Cause::Transport)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut client = LogClient::new(channel);
    let call = client.list_offsets(v1::ListOffsetsRequest { queries });
    match timeout(left.min(cluster.timings.request_timeout), call).await {
        Ok(Ok(response)) => Ok(response.into_inner().results),
        Ok(Err(status)) => Err(Cause::status(&status)),
        Err(_) => {
            cluster.pool.forget(address, Purpose::Control);
            Err(Cause::Deadline(format!("{address} did not answer")))
        }
    }
}

fn query(topic: &TopicView, partition: PartitionId, at: At) -> v1::OffsetQuery {
    let at = match at {
        At::Earliest => offset_query::At::Earliest(true),
        At::Latest => offset_query::At::Latest(true),
        At::Time(time) => offset_query::At::TimestampMs(time.0),
    };
    v1::OffsetQuery {
        topic_id: topic.id.0,
        partition: partition.0,
        at: Some(at),
    }
}

fn found_offset(partition: PartitionId, result: &v1::OffsetResult) -> FoundOffset {
    let timestamp = (result.timestamp_ms > 0).then_some(TimestampMs(result.timestamp_ms));
    FoundOffset {
        partition,
        offset: Offset(result.offset),
        timestamp,
    }
}
