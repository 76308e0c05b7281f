//! The messages behind commands that change topics. Field numbers are for ever; see FORMAT.md.
#![deny(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::TopicId;
use prost::Message;

use crate::command::MetadataCommand;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlterTopic {
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    #[prost(btree_map = "string, string", tag = "2")]
    pub set: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "3")]
    pub unset: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AddPartitions {
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    #[prost(uint32, tag = "2")]
    pub total: u32,
}

impl AlterTopic {
    pub(crate) fn new(
        topic: TopicId,
        set: &BTreeMap<String, String>,
        unset: &BTreeSet<String>,
    ) -> Self {
        Self {
            topic: topic.0,
            set: set.clone(),
            unset: unset.iter().cloned().collect(),
        }
    }
}

impl From<AlterTopic> for MetadataCommand {
    fn from(alter: AlterTopic) -> Self {
        Self::AlterTopic {
            topic: TopicId(alter.topic),
            set: alter.set,
            unset: alter.unset.into_iter().collect(),
        }
    }
}
