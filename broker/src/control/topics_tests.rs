//! What the leader of a shard proposes for a partition.

use std::collections::BTreeMap;

use highwater_metadata::{MetadataCommand, MetadataReply, NewBroker};
use highwater_proto::{PartitionId, TopicId};

use super::*;

fn image_with_a_topic() -> (Image, TopicId) {
    let mut image = Image::default();
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: vec![NewBroker {
            id: NodeId(1),
            address: "b1:9094".to_owned(),
            incarnation: "i".to_owned(),
            rack: String::new(),
            version: "0.1.0".to_owned(),
        }],
        shards_per_broker: 0,
    });
    let created = image.apply(&MetadataCommand::CreateTopic {
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::new(),
    });
    match created {
        MetadataReply::TopicCreated { topic } => (image, topic),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_are_taken_over_and_never_taken_back() {
    let (mut image, topic) = image_with_a_topic();
    let tp = TopicPartition::new(topic, PartitionId(0));
    let old = image.clone();
    let first = partition_config(image.topic(topic).expect("there"));
    assert_eq!(due(&image, FeatureLevel::TOPICS, (tp, first)), None);
    image.apply(&MetadataCommand::AlterTopic {
        topic,
        set: [("retention.ms".to_owned(), "1000".to_owned())].into(),
        unset: BTreeSet::new(),
    });
    let second = partition_config(image.topic(topic).expect("there"));
    let configure = ShardCommand::ConfigurePartition { tp, config: second };
    assert_eq!(
        due(&image, FeatureLevel::TOPICS, (tp, first)),
        Some(configure)
    );
    assert_eq!(due(&image, FeatureLevel::TOPICS, (tp, second)), None);
    // A leader that has not heard of the change.
    assert_eq!(due(&old, FeatureLevel::TOPICS, (tp, second)), None);
    // Replicas that would drop what changed.
    let plain = PartitionConfig {
        retention_ms: None,
        ..first
    };
    assert_eq!(due(&image, FeatureLevel::GROUPS, (tp, plain)), None);
}

#[test]
fn only_partitions_of_topics_that_were_deleted_go() {
    let (mut image, topic) = image_with_a_topic();
    let rules = FeatureLevel::TOPICS;
    let unheard = TopicPartition::new(TopicId(topic.0 + 1), PartitionId(0));
    assert_eq!(
        due(&image, rules, (unheard, PartitionConfig::default())),
        None
    );
    image.apply(&MetadataCommand::DeleteTopic { topic });
    let tp = TopicPartition::new(topic, PartitionId(0));
    let delete = ShardCommand::DeletePartition { tp };
    assert_eq!(
        due(&image, rules, (tp, PartitionConfig::default())),
        Some(delete)
    );
}

#[test]
fn compaction_waits_for_a_level_that_knows_it() {
    let (mut image, topic) = image_with_a_topic();
    let tp = TopicPartition::new(topic, PartitionId(0));
    let first = partition_config(image.topic(topic).expect("there"));
    assert_eq!(level(&image, [topic].into_iter()), FeatureLevel::TOPICS);
    image.apply(&MetadataCommand::AlterTopic {
        topic,
        set: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        unset: BTreeSet::new(),
    });
    assert_eq!(level(&image, [topic].into_iter()), FeatureLevel::COMPACTION);
    let wanted = partition_config(image.topic(topic).expect("there"));
    assert!(wanted.compact && wanted.retention_ms.is_none());
    // Below it the rest of the settings is taken over.
    let plain = wanted.without_compaction();
    let configure = |config| Some(ShardCommand::ConfigurePartition { tp, config });
    assert_eq!(
        due(&image, FeatureLevel::TOPICS, (tp, first)),
        configure(plain)
    );
    assert_eq!(due(&image, FeatureLevel::TOPICS, (tp, plain)), None);
    assert_eq!(
        due(&image, FeatureLevel::COMPACTION, (tp, plain)),
        configure(wanted)
    );
    assert_eq!(due(&image, FeatureLevel::COMPACTION, (tp, wanted)), None);
}

/// What a checkpoint names must not go because its shard has not started yet.
#[test]
fn leftovers_wait_for_every_shard_that_is_to_run_here() {
    assert!(!all_run(&Image::default(), NodeId(1), &BTreeSet::new()));
    let (image, _) = image_with_a_topic();
    let mut running: BTreeSet<ShardId> = image.shards().map(|shard| shard.id).collect();
    assert!(running.len() > 1, "{running:?}");
    assert!(all_run(&image, NodeId(1), &running));
    assert!(all_run(&image, NodeId(2), &BTreeSet::new()));
    running.pop_last();
    assert!(!all_run(&image, NodeId(1), &running));
}
