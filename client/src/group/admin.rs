//! Looks at consumer groups and changes them.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1::{self, groups_client::GroupsClient};
use highwater_proto::{Offset, PartitionId, TimestampMs, TopicPartition};
use tokio::time::Instant;

use super::coordinator::Coordinator;
use crate::client::Client;
use crate::error::AdminError;
use crate::rpc::{self, CallFailure};

/// Where committed offsets are moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetTo {
    /// The first record kept.
    Earliest,
    /// The end.
    Latest,
    /// This offset.
    Offset(Offset),
    /// So far from the committed offset. Partitions without one are left out.
    Shift(i64),
    /// The first record at or after this time; the end when there is none.
    Time(TimestampMs),
    /// Where another group is. Partitions that it has not are left out.
    Group(String),
}

/// Administrative calls about groups, each with its deadline.
#[derive(Debug, Clone)]
pub struct GroupAdmin {
    client: Client,
    timeout: Duration,
}

fn write_error(failure: CallFailure) -> AdminError {
    if failure.maybe_done {
        AdminError::Unknown(failure.cause)
    } else {
        AdminError::Rejected(failure.cause)
    }
}

/// A read leaves nothing behind: its failure is never in doubt.
fn read_error(failure: CallFailure) -> AdminError {
    AdminError::Rejected(failure.cause)
}

impl GroupAdmin {
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
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
    fn millis(&self) -> u32 {
        u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX)
    }
    fn coordinator(&self, group: &str) -> Coordinator {
        Coordinator::new(Arc::clone(&self.client.inner.cluster), Arc::from(group))
    }

    /// Every group whose name contains `name_contains`, page by page, and shards that could not be
    /// asked. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn list(
        &self,
        name_contains: &str,
    ) -> Result<(Vec<v1::GroupSummary>, Vec<String>), AdminError> {
        let (mut groups, mut problems, mut token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let request = v1::ListGroupsRequest {
                page_size: 0,
                page_token: token.clone(),
                name_contains: name_contains.to_owned(),
            };
            let cluster = &self.client.inner.cluster;
            let page = rpc::call(cluster, None, self.deadline(), |channel| {
                let request = request.clone();
                async move { GroupsClient::new(channel).list_groups(request).await }
            });
            let page = page.await.map_err(read_error)?;
            groups.extend(page.groups);
            for problem in page.problems {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            // A broker that repeats its token would keep us here for ever.
            if page.next_page_token.is_empty() || page.next_page_token == token {
                return Ok((groups, problems));
            }
            token = page.next_page_token;
        }
    }

    /// A group with its members, offsets and lag. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::UnknownGroup`](crate::ErrorCode::UnknownGroup)
    /// and others.
    pub fn describe<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<v1::DescribeGroupResponse, AdminError>> {
        async move {
            let request = v1::DescribeGroupRequest {
                group: group.to_owned(),
                without_lag: false,
            };
            let described = self.coordinator(group);
            let described = described.call(self.deadline(), self.timeout, |mut groups| {
                let request = request.clone();
                async move { groups.describe_group(request).await }
            });
            described.await.map_err(read_error)
        }
        .boxed()
    }

    /// Everything that a group has committed. Reaches every commit acknowledged before the call.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub fn offsets<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<v1::CommittedOffset>, AdminError>> {
        async move {
            let request = v1::FetchOffsetsRequest {
                group: group.to_owned(),
                partitions: Vec::new(),
            };
            let coordinator = self.coordinator(group);
            let fetched = coordinator.call(self.deadline(), self.timeout, |mut groups| {
                let request = request.clone();
                async move { groups.fetch_offsets(request).await }
            });
            Ok(fetched.await.map_err(read_error)?.offsets)
        }
        .boxed()
    }

    /// Moves the committed offsets of a group, of all partitions that it knows, of some topics, or
    /// of some partitions of theirs. Without `execute` nothing is changed, and the answer says what
    /// would be. `force`: also while it has members.
    ///
    /// Not cancellation-safe with `execute`: dropped, the offsets may or may not be moved.
    ///
    /// # Errors
    /// [`AdminError`], with [`ErrorCode::GroupNotEmpty`](crate::ErrorCode::GroupNotEmpty) among
    /// others.
    pub async fn reset(
        &self,
        group: &str,
        topics: &[String],
        partitions: &[u32],
        to: &ResetTo,
        how: Reset,
    ) -> Result<v1::ResetOffsetsResponse, AdminError> {
        use v1::reset_offsets_request::To;
        let to = match to {
            ResetTo::Earliest => To::Earliest(true),
            ResetTo::Latest => To::Latest(true),
            ResetTo::Offset(offset) => To::Offset(offset.0),
            ResetTo::Shift(by) => To::Shift(*by),
            ResetTo::Time(time) => To::TimestampMs(time.0),
            ResetTo::Group(other) => To::GroupPosition(other.clone()),
        };
        let request = v1::ResetOffsetsRequest {
            group: group.to_owned(),
            topics: topics.to_vec(),
            partitions: partitions.to_vec(),
            to: Some(to),
            execute: how.execute,
            force: how.force,
            timeout_ms: self.millis(),
        };
        let coordinator = self.coordinator(group);
        let reset = coordinator.call(self.deadline(), self.timeout, |mut groups| {
            let request = request.clone();
            async move { groups.reset_offsets(request).await }
        });
        let error = if how.execute { write_error } else { read_error };
        reset.await.map_err(error)
    }

    /// Makes the group `to` with the committed offsets of `from`; answers with their number. Not
    /// cancellation-safe: dropped, it may or may not be made.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<u32, AdminError> {
        let request = v1::CopyGroupRequest {
            from: from.to_owned(),
            to: to.to_owned(),
            timeout_ms: self.millis(),
        };
        let coordinator = self.coordinator(to);
        let copied = coordinator.call(self.deadline(), self.timeout, |mut groups| {
            let request = request.clone();
            async move { groups.copy_group(request).await }
        });
        Ok(copied.await.map_err(write_error)?.offsets)
    }

    /// Forgets a group with its offsets and parked keys; refused while it has members. Not
    /// cancellation-safe: dropped, it may or may not be done.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete(&self, group: &str) -> Result<(), AdminError> {
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
            timeout_ms: self.millis(),
        };
        let coordinator = self.coordinator(group);
        let deleted = coordinator.call(self.deadline(), self.timeout, |mut groups| {
            let request = request.clone();
            async move { groups.delete_group(request).await }
        });
        deleted.await.map(|_| ()).map_err(write_error)
    }

    /// Expels every member; answers with their number. They join again if they live. Not
    /// cancellation-safe: dropped, it may or may not be done.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_all_members(&self, group: &str) -> Result<u32, AdminError> {
        let request = v1::RemoveMembersRequest {
            group: group.to_owned(),
            all: true,
            timeout_ms: self.millis(),
            ..Default::default()
        };
        let coordinator = self.coordinator(group);
        let removed = coordinator.call(self.deadline(), self.timeout, |mut groups| {
            let request = request.clone();
            async move { groups.remove_members(request).await }
        });
        Ok(removed.await.map_err(write_error)?.removed)
    }

    /// The keys that a group has parked, of all partitions when none is named. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn parked_keys(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<v1::ParkedKey>, AdminError> {
        let coordinator = self.coordinator(group);
        let parked = parked_keys(&coordinator, partitions, self.deadline()).await;
        parked.map_err(read_error)
    }

    pub(crate) async fn unpark(
        &self,
        group: &str,
        keys: Vec<v1::UnparkKey>,
    ) -> Result<Vec<v1::UnparkResult>, AdminError> {
        let request = v1::UnparkKeysRequest {
            group: group.to_owned(),
            keys,
            timeout_ms: self.millis(),
        };
        let coordinator = self.coordinator(group);
        let unparked = coordinator.call(self.deadline(), self.timeout, |mut groups| {
            let request = request.clone();
            async move { groups.unpark_keys(request).await }
        });
        Ok(unparked.await.map_err(write_error)?.results)
    }
}

/// How a reset is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reset {
    /// Really; else it is only said what would be done.
    pub execute: bool,
    /// Also while the group has members.
    pub force: bool,
}

/// All pages.
pub(crate) async fn parked_keys(
    coordinator: &Coordinator,
    partitions: &[TopicPartition],
    deadline: Instant,
) -> Result<Vec<v1::ParkedKey>, CallFailure> {
    let partition = |tp: &TopicPartition| v1::PartitionRef {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
    };
    let (mut keys, mut token) = (Vec::new(), bytes::Bytes::new());
    loop {
        let request = v1::ListParkedKeysRequest {
            group: coordinator.group.to_string(),
            partitions: partitions.iter().map(partition).collect(),
            page_size: 0,
            page_token: token.clone(),
        };
        let longest = coordinator.cluster.timings.request_timeout;
        let page = coordinator.call(deadline, longest, |mut groups| {
            let request = request.clone();
            async move { groups.list_parked_keys(request).await }
        });
        let page = page.await?;
        keys.extend(page.keys);
        if page.next_page_token.is_empty() || page.next_page_token == token {
            return Ok(keys);
        }
        token = page.next_page_token;
    }
}

/// A partition of a committed offset.
pub(crate) fn place(topic_id: u64, partition: u32) -> TopicPartition {
    TopicPartition::new(highwater_proto::TopicId(topic_id), PartitionId(partition))
}
