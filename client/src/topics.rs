//! Administrative calls that change topics, delete them, or delete records.

use highwater_proto::v1::{self, topics_client::TopicsClient};
use highwater_proto::{Offset, PartitionId, TopicId};

use crate::admin::{Admin, write_error};
use crate::error::{AdminError, Cause, ErrorCode};
use crate::rpc::{Answer, CallFailure};

/// A change of a topic's settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicChange(v1::AlterTopicRequest);

impl TopicChange {
    /// No change yet.
    #[must_use]
    pub fn of(name: impl Into<String>) -> Self {
        Self(v1::AlterTopicRequest {
            name: name.into(),
            ..Default::default()
        })
    }
    /// A setting by Kafka's name, such as `retention.ms`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.set.insert(key.into(), value.into());
        self
    }
    /// A setting goes back to its default.
    #[must_use]
    pub fn unset(mut self, key: impl Into<String>) -> Self {
        self.0.unset.push(key.into());
        self
    }
    /// Only says what would be.
    #[must_use]
    pub fn dry_run(mut self, dry: bool) -> Self {
        self.0.dry_run = dry;
        self
    }
}

/// An answer that is believed when it says that there is no such topic or partition: it comes from the
/// metadata leader, after it has made sure that it still leads.
pub(crate) struct Certain<T>(pub T);

impl<T: Answer> Answer for Certain<T> {
    fn error(&self) -> Option<&v1::Error> {
        let error = self.0.error();
        let unknown = [ErrorCode::UnknownTopic, ErrorCode::UnknownPartition];
        error.filter(|error| !unknown.contains(&error.code()))
    }
}

pub(crate) fn settled<T: Answer>(
    outcome: Result<Certain<T>, CallFailure>,
) -> Result<T, CallFailure> {
    let Certain(answer) = outcome?;
    match answer.error().map(Cause::broker) {
        None => Ok(answer),
        Some(cause) => Err(CallFailure {
            cause,
            maybe_done: false,
        }),
    }
}

macro_rules! call {
    ($admin:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let outcome = $admin.call(|channel| {
            let request = request.clone();
            async move {
                let answer = TopicsClient::new(channel).$method(request).await;
                answer.map(|answer| answer.map(Certain))
            }
        });
        settled(outcome.await)
    }};
}

impl Admin {
    /// Deletes a topic with all its records. Its name is free at once, and this client, with those cloned
    /// from it, never takes it for a later one of that name. Not cancellation-safe: dropped, the topic may
    /// or may not be deleted.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::UnknownTopic`] and others.
    pub async fn delete_topic(&self, name: &str) -> Result<v1::TopicSummary, AdminError> {
        // By its id: a repeated call must not delete a topic that was made under its name meanwhile.
        let found = self.find_topic(name).await?;
        self.delete_topic_of_id(name, TopicId(found.id)).await?;
        let later = TopicId(found.id.saturating_add(1));
        self.client.inner.cluster.at_least(name, later);
        Ok(found)
    }

    /// The topic that [`Admin::delete_topic`] would delete. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::UnknownTopic`] and others.
    pub async fn find_topic(&self, name: &str) -> Result<v1::TopicSummary, AdminError> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
            topic_id: 0,
            dry_run: true,
            timeout_ms: self.millis(),
        };
        let found = call!(self, delete_topic, request).map_err(write_error)?;
        Ok(found.topic.unwrap_or_default())
    }

    /// Deletes a topic only if it has this id. Not cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::TopicDeleted`] when it is gone already.
    pub async fn delete_topic_of_id(&self, name: &str, id: TopicId) -> Result<(), AdminError> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
            topic_id: id.0,
            dry_run: false,
            timeout_ms: self.millis(),
        };
        match call!(self, delete_topic, request) {
            Ok(_) => Ok(()),
            // By an earlier attempt of this very call, or by somebody else: it is gone.
            Err(failure)
                if failure.maybe_done && failure.cause.code() == Some(ErrorCode::TopicDeleted) =>
            {
                Ok(())
            }
            Err(failure) => Err(write_error(failure)),
        }
    }

    /// Changes a topic's settings, or says what they would be. The answer counts partitions whose
    /// leader has not taken them over before the deadline; it does so by itself. Not
    /// cancellation-safe: dropped, they may or may not change.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::InvalidConfig`], [`ErrorCode::UnknownTopic`] and
    /// others.
    pub async fn alter_topic(
        &self,
        change: TopicChange,
    ) -> Result<v1::AlterTopicResponse, AdminError> {
        let request = v1::AlterTopicRequest {
            timeout_ms: self.millis(),
            ..change.0
        };
        call!(self, alter_topic, request).map_err(write_error)
    }

    /// Gives a topic more partitions, `total` in all, or says where they would be. Records of one
    /// key may go to another partition from then on. Not cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`] with [`ErrorCode::InvalidRequest`] when it has more already,
    /// [`ErrorCode::UnknownTopic`] and others.
    pub async fn add_partitions(
        &self,
        name: &str,
        total: u32,
        dry_run: bool,
    ) -> Result<v1::TopicMetadata, AdminError> {
        let request = v1::AddPartitionsRequest {
            name: name.to_owned(),
            total,
            dry_run,
            timeout_ms: self.millis(),
        };
        let grown = call!(self, add_partitions, request).map_err(write_error)?;
        Ok(grown.topic.unwrap_or_default())
    }

    /// Deletes the records below an offset of each partition named, for ever and on every replica,
    /// or says what would go. Each partition has its own outcome. Not cancellation-safe: dropped,
    /// they may or may not be gone.
    ///
    /// # Errors
    /// [`AdminError`] when nothing was done, or nobody could say.
    pub async fn delete_records(
        &self,
        name: &str,
        before: &[(PartitionId, Offset)],
        dry_run: bool,
    ) -> Result<Vec<v1::RecordsDeleted>, AdminError> {
        let found = self.find_topic(name).await?;
        let wanted = |(partition, offset): &(PartitionId, Offset)| v1::RecordsBefore {
            partition: partition.0,
            offset: offset.0,
        };
        let request = v1::DeleteRecordsRequest {
            name: name.to_owned(),
            topic_id: found.id,
            partitions: before.iter().map(wanted).collect(),
            dry_run,
            timeout_ms: self.millis(),
        };
        let deleted = call!(self, delete_records, request).map_err(write_error)?;
        Ok(deleted.partitions)
    }
}
