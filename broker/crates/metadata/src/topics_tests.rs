//! Topics that are altered, grown and deleted.

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ShardId, TopicId};

use crate::{Image, MetadataCommand, MetadataReply, NewBroker};

fn cluster() -> Image {
    let mut image = Image::default();
    let broker = |id: u32| NewBroker {
        id: NodeId(id),
        address: format!("b{id}:9094"),
        incarnation: format!("i{id}"),
        rack: String::new(),
        version: "0.1.0".to_owned(),
    };
    let command = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: (1..=3).map(broker).collect(),
        shards_per_broker: 0,
    };
    assert_eq!(image.apply(&command), MetadataReply::Done);
    image
}

fn create(image: &mut Image, name: &str, partitions: u32) -> TopicId {
    let command = MetadataCommand::CreateTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 3,
        configs: BTreeMap::new(),
    };
    match image.apply(&command) {
        MetadataReply::TopicCreated { topic } => topic,
        other => panic!("{other:?}"),
    }
}

fn confirm(image: &mut Image, topic: TopicId, partitions: std::ops::Range<u32>) {
    let partitions = partitions.map(PartitionId).collect();
    image.apply(&MetadataCommand::ConfirmPartitions { topic, partitions });
}

fn refused(reply: MetadataReply) -> ErrorCode {
    match reply {
        MetadataReply::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn assigned(image: &Image) -> u32 {
    image.shards().map(|shard| shard.partitions).sum()
}

fn alter(topic: TopicId, set: &[(&str, &str)], unset: &[&str]) -> MetadataCommand {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    MetadataCommand::AlterTopic {
        topic,
        set: set.iter().map(pair).collect(),
        unset: unset.iter().map(|key| (*key).to_owned()).collect(),
    }
}

fn stored(image: &Image) -> Image {
    Image::decode_snapshot(&image.encode_snapshot()).expect("own snapshot")
}

#[test]
fn a_deleted_topic_frees_its_name_and_its_place_and_never_its_id() {
    let mut image = cluster();
    let first = create(&mut image, "orders", 6);
    assert_eq!(assigned(&image), 6);
    let delete = MetadataCommand::DeleteTopic { topic: first };
    assert_eq!(image.apply(&delete), MetadataReply::Done);
    assert!(image.topic_by_name("orders").is_none() && image.was_deleted(first));
    assert_eq!(assigned(&image), 0);
    let second = create(&mut image, "orders", 6);
    assert_ne!(first, second);
    // A repeated command does not touch the new topic.
    assert_eq!(image.apply(&delete), MetadataReply::Done);
    assert_eq!(image.topic_by_name("orders").expect("there").id(), second);
    confirm(&mut image, first, 0..6);
    let never = MetadataCommand::DeleteTopic { topic: TopicId(99) };
    assert_eq!(refused(image.apply(&never)), ErrorCode::UnknownTopic);
    assert_eq!(stored(&image), image);
}

#[test]
fn altered_settings_count_their_versions() {
    let mut image = cluster();
    let id = create(&mut image, "orders", 1);
    let version = |image: &Image| image.topic(id).expect("there").config_version();
    let retention = |image: &Image| image.topic(id).expect("there").settings().retention_ms;
    image.apply(&alter(id, &[("retention.ms", "1000")], &[]));
    assert_eq!((version(&image), retention(&image)), (1, 1000));
    image.apply(&alter(id, &[("retention.ms", "1000")], &[]));
    assert_eq!(version(&image), 1, "nothing changed");
    image.apply(&alter(id, &[], &["retention.ms"]));
    assert_eq!((version(&image), retention(&image)), (2, 604_800_000));
    assert_eq!(stored(&image), image);
    let before = image.clone();
    for (command, code) in [
        (
            alter(id, &[("retention.ms", "soon")], &[]),
            ErrorCode::InvalidConfig,
        ),
        (
            alter(id, &[("no.such", "1")], &[]),
            ErrorCode::InvalidConfig,
        ),
        (alter(id, &[], &["no.such"]), ErrorCode::InvalidConfig),
        (
            alter(id, &[("retention.ms", "1")], &["retention.ms"]),
            ErrorCode::InvalidConfig,
        ),
        (alter(TopicId(9), &[], &[]), ErrorCode::UnknownTopic),
    ] {
        assert_eq!(refused(image.apply(&command)), code, "{command:?}");
    }
    assert_eq!(image, before);
}

#[test]
fn a_topic_that_grows_is_served_and_shows_its_new_partitions_all_at_once() {
    let mut image = cluster();
    let id = create(&mut image, "orders", 3);
    let add = |total| MetadataCommand::AddPartitions { topic: id, total };
    assert_eq!(refused(image.apply(&add(6))), ErrorCode::TopicNotReady);
    confirm(&mut image, id, 0..3);
    let before: Vec<ShardId> = image.topic(id).expect("there").shards().collect();
    assert_eq!(image.apply(&add(8)), MetadataReply::Done);
    for made in 3..8 {
        let topic = image.topic(id).expect("there");
        assert!(topic.is_ready() && !topic.is_complete());
        assert_eq!(topic.partition_count(), 3);
        assert!(topic.is_made(PartitionId(2)) && !topic.is_made(PartitionId(made)));
        assert_eq!(stored(&image), image);
        assert_eq!(image.apply(&add(8)), MetadataReply::Done, "done before");
        assert_eq!(refused(image.apply(&add(9))), ErrorCode::TopicNotReady);
        confirm(&mut image, id, made..made + 1);
    }
    let topic = image.topic(id).expect("there");
    assert_eq!((topic.partition_count(), topic.is_complete()), (8, true));
    let shards: Vec<ShardId> = topic.shards().collect();
    assert_eq!(shards[..3], before[..]);
    let distinct: BTreeSet<&ShardId> = shards.iter().collect();
    assert_eq!(distinct.len(), 8, "spread over shards: {shards:?}");
    assert_eq!(assigned(&image), 8);
    assert_eq!(refused(image.apply(&add(7))), ErrorCode::InvalidRequest);
    assert_eq!(
        refused(image.apply(&add(200_000))),
        ErrorCode::InvalidRequest
    );
}
