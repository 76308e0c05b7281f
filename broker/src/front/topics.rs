//! The service `Topics`: topics deleted, altered and grown, records deleted. Answered where the
//! metadata group is led; everybody else names that broker.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{MetadataCommand, Topic};
use highwater_proto::v1::topics_server::Topics;
use highwater_proto::v1::{
    AddPartitionsRequest, AddPartitionsResponse, AlterTopicRequest, AlterTopicResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicRequest, DeleteTopicResponse, Error,
    ErrorCode, RecordsBefore, RecordsDeleted, TopicMetadata, TopicSummary,
};
use highwater_proto::{Offset, PartitionId, TopicPartition};
use highwater_shard::{CommandRefusal, ShardCommand, ShardReply};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::lifecycle::{lead, propose};
use super::{convert, describe, view};
use crate::control::controller::command_shard;
use crate::node::Broker;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two questions to leaders that have not done yet what they will do by themselves.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The most partitions of one request to delete records.
const MOST_AT_ONCE: usize = 100_000;

/// The service over one broker.
pub struct TopicsService<E: Env>(pub Arc<Broker<E>>);

fn deadline(timeout_ms: u32) -> Instant {
    Instant::now()
        + match timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)),
        }
}

impl<E: Env> TopicsService<E> {
    /// The topic of a name, and of this id unless that is 0.
    async fn find(&self, name: &str, id: u64) -> Result<Arc<Topic>, Error> {
        lead(&self.0).await?;
        let image = self.0.cluster.image();
        let found = image.topic_by_name(name).cloned();
        match found {
            Some(topic) if id == 0 || topic.id().0 == id => Ok(topic),
            Some(topic) => {
                let text = format!(
                    "topic '{name}' of id {id} was deleted; the one of that name has id {}",
                    topic.id()
                );
                Err(convert::error(ErrorCode::TopicDeleted, text, None))
            }
            None if id != 0 && image.was_deleted(highwater_proto::TopicId(id)) => {
                let text = format!("topic '{name}' of id {id} was deleted");
                Err(convert::error(ErrorCode::TopicDeleted, text, None))
            }
            None => {
                let text = format!("no topic is named '{name}'; `highwater topic list` shows all");
                Err(convert::error(ErrorCode::UnknownTopic, text, None))
            }
        }
    }

    async fn propose(&self, command: &MetadataCommand, until: Instant) -> Result<(), Error> {
        let left = until.saturating_duration_since(Instant::now());
        propose(&self.0, command, left).await
    }

    fn preview(
        &self,
        topic: &Topic,
        command: &MetadataCommand,
    ) -> Result<Option<Arc<Topic>>, Error> {
        let image = self.0.cluster.image();
        let previewed = image.preview_topic(topic.id(), command);
        previewed.map_err(|why| convert::error(why.code, why.message, None))
    }

    fn shown(&self, topic: &Topic) -> TopicMetadata {
        let image = self.0.cluster.image();
        let now = image.topic(topic.id());
        view::topic(&self.0.cluster, now.map_or(topic, |now| now))
    }

    async fn delete(&self, request: DeleteTopicRequest) -> Result<TopicSummary, Error> {
        let until = deadline(request.timeout_ms);
        let topic = self.find(&request.name, request.topic_id).await?;
        if !request.dry_run {
            let command = MetadataCommand::DeleteTopic { topic: topic.id() };
            self.propose(&command, until).await?;
            tracing::info!(topic = topic.name(), id = topic.id().0, "topic deleted");
        }
        Ok(TopicSummary {
            id: topic.id().0,
            name: topic.name().to_owned(),
            partitions: topic.partition_count(),
            replication_factor: topic.replication_factor(),
            ready: topic.is_ready(),
        })
    }

    async fn alter(&self, request: AlterTopicRequest) -> Result<(TopicMetadata, u32), Error> {
        let until = deadline(request.timeout_ms);
        let topic = self.find(&request.name, 0).await?;
        let command = MetadataCommand::AlterTopic {
            topic: topic.id(),
            set: request.set.into_iter().collect(),
            unset: request.unset.into_iter().collect(),
        };
        if request.dry_run {
            let altered = self.preview(&topic, &command)?.unwrap_or(topic);
            return Ok((view::topic(&self.0.cluster, &altered), 0));
        }
        self.propose(&command, until).await?;
        // As it is after that, or after what somebody else has changed since.
        let Some(altered) = self.0.cluster.image().topic(topic.id()).cloned() else {
            let text = "the topic was deleted meanwhile";
            return Err(convert::error(ErrorCode::TopicDeleted, text, None));
        };
        loop {
            let pending = describe::behind_settings(&self.0, &altered).await;
            if pending == 0 || Instant::now() + ASK_AGAIN >= until {
                return Ok((self.shown(&altered), pending));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn add(&self, request: AddPartitionsRequest) -> Result<TopicMetadata, Error> {
        let until = deadline(request.timeout_ms);
        let topic = self.find(&request.name, 0).await?;
        let command = MetadataCommand::AddPartitions {
            topic: topic.id(),
            total: request.total,
        };
        if request.dry_run {
            // As it would be once all of them exist.
            let grown = self.preview(&topic, &command)?.unwrap_or(topic);
            return Ok(view::whole_topic(&self.0.cluster, &grown));
        }
        self.propose(&command, until).await?;
        let mut changes = self.0.cluster.changes();
        loop {
            changes.borrow_and_update();
            let now = self.0.cluster.image().topic(topic.id()).cloned();
            match now {
                Some(now) if now.is_complete() => return Ok(self.shown(&now)),
                Some(_) => {}
                None => {
                    let text = "the topic was deleted meanwhile";
                    return Err(convert::error(ErrorCode::TopicDeleted, text, None));
                }
            }
            let changed = tokio::time::timeout_at(until, changes.changed()).await;
            if changed.is_err() {
                let text = "the partitions are being added, but not all of them have a leader \
                            yet; they are shown as soon as they do";
                return Err(convert::error(ErrorCode::TimedOut, text, None));
            }
        }
    }

    async fn delete_records(
        &self,
        request: DeleteRecordsRequest,
    ) -> Result<Vec<RecordsDeleted>, Error> {
        let until = deadline(request.timeout_ms);
        let topic = self.find(&request.name, request.topic_id).await?;
        if request.partitions.len() > MOST_AT_ONCE {
            let text = format!("at most {MOST_AT_ONCE} partitions at a time");
            return Err(convert::error(ErrorCode::InvalidRequest, text, None));
        }
        let mut all = Vec::with_capacity(request.partitions.len());
        for wanted in request.partitions {
            let partition = wanted.partition;
            let outcome = self.trim(&topic, wanted, (request.dry_run, until)).await;
            all.push(outcome.unwrap_or_else(|error| RecordsDeleted {
                partition,
                error: Some(error),
                ..RecordsDeleted::default()
            }));
        }
        Ok(all)
    }

    /// Trims one partition. Repeating it changes nothing, so it is repeated until its leader has
    /// said what became of it.
    async fn trim(
        &self,
        topic: &Topic,
        wanted: RecordsBefore,
        (dry_run, until): (bool, Instant),
    ) -> Result<RecordsDeleted, Error> {
        let tp = TopicPartition::new(topic.id(), PartitionId(wanted.partition));
        loop {
            // It may be in another shard by now.
            let image = self.0.cluster.image();
            let topic = image.topic(topic.id()).map_or(topic, |now| now);
            let shard = topic.shard_of(tp.partition);
            let Some(shard) = shard.filter(|_| topic.is_made(tp.partition)) else {
                let text = format!("topic '{}' has no partition {}", topic.name(), tp.partition);
                return Err(convert::error(ErrorCode::UnknownPartition, text, None));
            };
            let leader = self.0.cluster.leader(shard).and_then(|info| info.node);
            let reason = match describe::one(&self.0, leader, tp).await {
                Ok(facts) => {
                    let range = (Offset(facts.log_start_offset), Offset(facts.high_watermark));
                    let log_start = Offset(wanted.offset);
                    let command = ShardCommand::TrimLog {
                        tp,
                        log_start,
                        config_version: None,
                    };
                    let reply = if dry_run {
                        Ok(would_trim(log_start, range))
                    } else {
                        command_shard(&self.0, shard, &command).await
                    };
                    match reply {
                        Ok(ShardReply::Refused(why @ CommandRefusal::Moving)) => why.to_string(),
                        Ok(reply) => return trimmed(tp, reply, range),
                        Err(reason) => reason,
                    }
                }
                Err(reason) => reason,
            };
            if Instant::now() + ASK_AGAIN >= until {
                let text = format!("the records may or may not be deleted: {reason}");
                return Err(convert::error(ErrorCode::TimedOut, text, None));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// What apply would say.
fn would_trim(log_start: Offset, (start, end): (Offset, Offset)) -> ShardReply {
    if log_start > end {
        ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset: end })
    } else {
        ShardReply::Trimmed {
            log_start: log_start.max(start),
        }
    }
}

fn trimmed(
    tp: TopicPartition,
    reply: ShardReply,
    (start, end): (Offset, Offset),
) -> Result<RecordsDeleted, Error> {
    let refused = |code, text: String| Err(convert::error(code, text, None));
    match reply {
        ShardReply::Trimmed { log_start } => Ok(RecordsDeleted {
            partition: tp.partition.0,
            error: None,
            old_log_start: start.0,
            log_start: log_start.0,
            high_watermark: end.0,
        }),
        ShardReply::Refused(why @ CommandRefusal::OffsetOutOfRange { .. }) => {
            refused(ErrorCode::OffsetOutOfRange, why.to_string())
        }
        ShardReply::Refused(why) => refused(ErrorCode::TopicDeleted, why.to_string()),
        other => refused(ErrorCode::Internal, format!("unexpected {other:?}")),
    }
}

#[tonic::async_trait]
impl<E: Env> Topics for TopicsService<E> {
    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        let (error, topic) = split(self.delete(request.into_inner()).await);
        Ok(Response::new(DeleteTopicResponse { error, topic }))
    }

    async fn alter_topic(
        &self,
        request: Request<AlterTopicRequest>,
    ) -> Result<Response<AlterTopicResponse>, Status> {
        let (error, altered) = split(self.alter(request.into_inner()).await);
        let (topic, pending) = altered.unzip();
        Ok(Response::new(AlterTopicResponse {
            error,
            topic,
            pending: pending.unwrap_or(0),
        }))
    }

    async fn add_partitions(
        &self,
        request: Request<AddPartitionsRequest>,
    ) -> Result<Response<AddPartitionsResponse>, Status> {
        let (error, topic) = split(self.add(request.into_inner()).await);
        Ok(Response::new(AddPartitionsResponse { error, topic }))
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        let (error, partitions) = split(self.delete_records(request.into_inner()).await);
        Ok(Response::new(DeleteRecordsResponse {
            error,
            partitions: partitions.unwrap_or_default(),
        }))
    }
}

fn split<T>(outcome: Result<T, Error>) -> (Option<Error>, Option<T>) {
    match outcome {
        Ok(value) => (None, Some(value)),
        Err(error) => (Some(error), None),
    }
}
