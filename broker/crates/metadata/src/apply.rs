//! Commands applied: a new image, or a refusal and the same image.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ProducerId, ShardId, TopicId};

use crate::command::{MetadataCommand, MetadataReply, NewBroker, Refusal};
use crate::configs::{TopicSettings, check_name};
use crate::image::Image;
use crate::level::MetadataLevel;
use crate::placement;
use crate::topic::Topic;

/// The most partitions that one topic may have.
pub(crate) const MOST_PARTITIONS: u32 = 100_000;
/// The most replicated shards per broker that a founding may ask for.
pub const MOST_SHARDS_PER_BROKER: u32 = 64;

impl Image {
    /// Applies a command. The same command on the same image gives the same image on every broker.
    pub fn apply(&mut self, command: &MetadataCommand) -> MetadataReply {
        match self.try_apply(command) {
            Ok(reply) => reply,
            Err(refusal) => MetadataReply::Refused(refusal),
        }
    }

    /// Whether a command would be refused, without applying it.
    ///
    /// # Errors
    /// The refusal.
    pub fn validate(&self, command: &MetadataCommand) -> Result<(), Refusal> {
        match command {
            MetadataCommand::CreateTopic {
                name,
                partitions,
                replication_factor,
                configs,
            } => {
                self.admits(command)?;
                self.check_topic(name, *partitions, *replication_factor, configs)
                    .map(|_| ())
            }
            other => self.clone().try_apply(other).map(|_| ()),
        }
    }

    fn try_apply(&mut self, command: &MetadataCommand) -> Result<MetadataReply, Refusal> {
        self.admits(command)?;
        match command {
            MetadataCommand::CreateCluster {
                cluster_id,
                brokers,
                shards_per_broker,
            } => self.create_cluster(cluster_id, brokers, *shards_per_broker),
            MetadataCommand::RegisterBroker(broker) => self.register(broker),
            MetadataCommand::EstablishShard { shard } => Ok(self.establish(*shard)),
            MetadataCommand::CreateTopic {
                name,
                partitions,
                replication_factor,
                configs,
            } => {
                let settings = self.check_topic(name, *partitions, *replication_factor, configs)?;
                Ok(self.create_topic(name, *partitions, *replication_factor, configs, settings))
            }
            MetadataCommand::ConfirmPartitions { topic, partitions } => {
                self.confirm(*topic, partitions)
            }
            MetadataCommand::DeleteTopic { topic } => self.delete_topic(*topic),
            MetadataCommand::AlterTopic { topic, set, unset } => {
                self.alter_topic(*topic, set, unset)
            }
            MetadataCommand::AddPartitions { topic, total } => self.add_partitions(*topic, *total),
            MetadataCommand::AllocateProducerIds { count: 0 } => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "a block has at least one id",
            )),
            MetadataCommand::AllocateProducerIds { count } => {
                let first = ProducerId(self.next_producer);
                self.next_producer = self.next_producer.saturating_add(u64::from(*count));
                Ok(MetadataReply::ProducerIds {
                    first,
                    count: *count,
                })
            }
            MetadataCommand::StartPlan {
                kind,
                parallel,
                accept_loss,
            } => self.start_plan(*kind, *parallel, *accept_loss),
            MetadataCommand::AdvanceMove { plan, shard, step } => {
                self.advance(*plan, *shard, *step)
            }
            MetadataCommand::AdvancePartition {
                plan,
                topic,
                partition,
                step,
            } => self.advance_partition(*plan, (*topic, *partition), *step),
            MetadataCommand::CancelPlan { plan } => self.cancel_plan(*plan),
            MetadataCommand::RemoveBroker { broker } => self.remove_broker(*broker),
            MetadataCommand::ConfirmExpelled { broker } => Ok(self.expelled(*broker)),
            MetadataCommand::RaiseLevel { level } => Ok(self.raise_level(*level)),
        }
    }

    fn create_cluster(
        &mut self,
        cluster_id: &str,
        brokers: &[NewBroker],
        shards_per_broker: u32,
    ) -> Result<MetadataReply, Refusal> {
        match &self.cluster_id {
            Some(known) if known == cluster_id => return Ok(MetadataReply::Done),
            Some(known) => {
                let text = format!("this is cluster {known}, it cannot become {cluster_id}");
                return Err(Refusal::new(ErrorCode::InvalidRequest, text));
            }
            None => {}
        }
        if cluster_id.is_empty() || brokers.is_empty() || brokers.iter().any(|b| b.id.0 == 0) {
            let text = "a cluster needs an id and brokers with ids of at least 1";
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        if shards_per_broker > MOST_SHARDS_PER_BROKER {
            let text = format!(
                "{shards_per_broker} shards per broker: give at most {MOST_SHARDS_PER_BROKER}"
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        self.cluster_id = Some(cluster_id.to_owned());
        self.shards_per_broker = shards_per_broker;
        if shards_per_broker > 0 {
            self.level = self.level.max(MetadataLevel::SIZED);
        }
        // A broker may have registered before this command was written: what it said is newer.
        for founder in brokers {
            self.brokers
                .entry(founder.id)
                .or_insert_with(|| founder.clone());
        }
        let founders: BTreeMap<NodeId, NewBroker> = brokers
            .iter()
            .filter_map(|founder| Some((founder.id, self.brokers.get(&founder.id)?.clone())))
            .collect();
        self.shards = placement::first_shards(&founders, shards_per_broker);
        self.group_shards = placement::group_shards(&self.shards);
        self.next_topic = 1;
        Ok(MetadataReply::Done)
    }

    fn establish(&mut self, shard: ShardId) -> MetadataReply {
        if let Some(known) = self.shards.get_mut(&shard) {
            known.established = true;
        }
        MetadataReply::Done
    }

    fn check_topic(
        &self,
        name: &str,
        partitions: u32,
        replication_factor: u32,
        configs: &BTreeMap<String, String>,
    ) -> Result<TopicSettings, Refusal> {
        check_name(name)?;
        if self.names.contains_key(name) {
            let text = format!("a topic named '{name}' exists already");
            return Err(Refusal::new(ErrorCode::TopicExists, text));
        }
        if partitions == 0 || partitions > MOST_PARTITIONS {
            let text = format!("{partitions} partitions: give 1 to {MOST_PARTITIONS}");
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        if !matches!(replication_factor, 1 | 3 | 5) {
            let text = format!("replication factor {replication_factor}: give 1, 3 or 5");
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        self.check_class(replication_factor)?;
        TopicSettings::read(configs)
    }

    /// Whether topics of this many replicas can be made.
    pub(crate) fn check_class(&self, replication_factor: u32) -> Result<(), Refusal> {
        if self.has_class(replication_factor) {
            return Ok(());
        }
        let known = self.brokers.len();
        let text = if known >= replication_factor as usize {
            format!(
                "no shard has {replication_factor} replicas yet; run `highwater cluster rebalance` \
                 first"
            )
        } else {
            format!(
                "replication factor {replication_factor} needs as many brokers; the cluster has \
                 {known}"
            )
        };
        Err(Refusal::new(ErrorCode::NotEnoughBrokers, text))
    }

    fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        replication_factor: u32,
        configs: &BTreeMap<String, String>,
        settings: TopicSettings,
    ) -> MetadataReply {
        let id = TopicId(self.next_topic);
        self.next_topic += 1;
        let shards = placement::place(self, id, partitions, replication_factor);
        for shard in &shards {
            if let Some(shard) = self.shards.get_mut(shard) {
                shard.partitions += 1;
            }
        }
        let name: Arc<str> = name.into();
        let topic = Topic {
            id,
            name: Arc::clone(&name),
            replication_factor,
            configs: configs.clone(),
            settings,
            shards,
            unconfirmed: (0..partitions).map(PartitionId).collect(),
            config_version: 0,
            growing_from: 0,
            arrivals: BTreeMap::new(),
        };
        self.topics.insert_mut(id, Arc::new(topic));
        self.names.insert_mut(name, id);
        MetadataReply::TopicCreated { topic: id }
    }

    /// Brokers that hold replicas of some shard.
    #[must_use]
    pub fn hosts(&self) -> Vec<NodeId> {
        let mut hosts: Vec<NodeId> = self
            .shards
            .values()
            .flat_map(|shard| shard.replicas.iter().copied())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}
