//! Commands about topics that exist applied: confirmed, altered, grown, deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::v1::ErrorCode;
use highwater_proto::{PartitionId, TopicId};

use crate::apply::MOST_PARTITIONS;
use crate::command::{MetadataReply, Refusal};
use crate::configs::TopicSettings;
use crate::image::Image;
use crate::level::MetadataLevel;
use crate::placement;
use crate::topic::Topic;

impl Image {
    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, Refusal> {
        match self.topics.get_mut(&id) {
            Some(topic) => Ok(Arc::make_mut(topic)),
            None => {
                let text = format!("no topic has the id {id}");
                Err(Refusal::new(ErrorCode::UnknownTopic, text))
            }
        }
    }

    pub(crate) fn confirm(
        &mut self,
        id: TopicId,
        partitions: &[PartitionId],
    ) -> Result<MetadataReply, Refusal> {
        let topic = self.topic_mut(id)?;
        for partition in partitions {
            topic.unconfirmed.remove(partition);
        }
        if topic.unconfirmed.is_empty() {
            topic.growing_from = 0;
        }
        Ok(MetadataReply::Done)
    }

    /// The topic is gone for clients at once. Its partitions go in their shards as soon as the
    /// leader of each sees that this image no longer has it: nothing has to be remembered here.
    pub(crate) fn delete_topic(&mut self, id: TopicId) -> Result<MetadataReply, Refusal> {
        let Some(topic) = self.topics.get(&id).cloned() else {
            if self.was_deleted(id) {
                return Ok(MetadataReply::Done);
            }
            let text = format!("no topic has the id {id}");
            return Err(Refusal::new(ErrorCode::UnknownTopic, text));
        };
        self.topics.remove_mut(&id);
        self.names.remove_mut(&topic.name);
        self.stop_moving(id);
        for shard in &topic.shards {
            if let Some(shard) = self.shards.get_mut(shard) {
                shard.partitions = shard.partitions.saturating_sub(1);
            }
        }
        Ok(MetadataReply::Done)
    }

    pub(crate) fn alter_topic(
        &mut self,
        id: TopicId,
        set: &BTreeMap<String, String>,
        unset: &BTreeSet<String>,
    ) -> Result<MetadataReply, Refusal> {
        let topic = self.topic_mut(id)?;
        if let Some(both) = unset.iter().find(|key| set.contains_key(*key)) {
            let text = format!("{both} cannot be set and unset at the same time");
            return Err(Refusal::new(ErrorCode::InvalidConfig, text));
        }
        for key in unset {
            TopicSettings::check_key(key)?;
        }
        let was_compacted = topic.settings.cleanup.compact;
        let mut configs = topic.configs.clone();
        configs.retain(|key, _| !unset.contains(key));
        configs.extend(set.clone());
        let settings = TopicSettings::read(&configs)?;
        // What is compacted already is held while it is copied; of another topic an older release may have begun a
        // copy without holding it.
        let is_held = was_compacted && self.level >= MetadataLevel::COMPACTED_MOVES;
        if settings.cleanup.compact && !is_held {
            self.check_not_moving(id, "cannot be compacted")?;
        }
        let topic = self.topic_mut(id)?;
        if configs != topic.configs {
            topic.configs = configs;
            topic.settings = settings;
            topic.config_version += 1;
        }
        Ok(MetadataReply::Done)
    }

    /// Existing partitions are served all the while; clients see the new ones when all of them
    /// exist in their shards.
    pub(crate) fn add_partitions(
        &mut self,
        id: TopicId,
        total: u32,
    ) -> Result<MetadataReply, Refusal> {
        let known = self.topic_mut(id)?.clone();
        let has = u32::try_from(known.shards.len()).unwrap_or(u32::MAX);
        if total == has {
            return Ok(MetadataReply::Done);
        }
        if total < has {
            let text = format!(
                "topic '{}' has {has} partitions; their number can grow, not shrink",
                known.name
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        if total > MOST_PARTITIONS {
            let text = format!("{total} partitions: give at most {MOST_PARTITIONS}");
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        if !known.is_complete() {
            let text = format!("topic '{}' is still being set up; try again", known.name);
            return Err(Refusal::new(ErrorCode::TopicNotReady, text));
        }
        self.check_not_moving(id, "gets no more of them")?;
        let added = placement::extend(self, &known, total - has);
        for shard in &added {
            if let Some(shard) = self.shards.get_mut(shard) {
                shard.partitions += 1;
            }
        }
        let topic = self.topic_mut(id)?;
        topic.shards.extend(added);
        topic.unconfirmed = (has..total).map(PartitionId).collect();
        topic.growing_from = has;
        Ok(MetadataReply::Done)
    }

    /// The topic as it would be after a command that is not carried out.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn preview_topic(
        &self,
        id: TopicId,
        command: &crate::MetadataCommand,
    ) -> Result<Option<Arc<Topic>>, Refusal> {
        let mut image = self.clone();
        match image.apply(command) {
            MetadataReply::Refused(refusal) => Err(refusal),
            _ => Ok(image.topics.get(&id).cloned()),
        }
    }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
