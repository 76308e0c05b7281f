//! The image against its rules: idempotence, refusals, even placement, snapshots.

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ProducerId, ShardId, TopicId};
use proptest::prelude::*;

use crate::*;

fn broker(id: u32) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("b{id}:9094"),
        incarnation: format!("i{id}"),
        rack: format!("r{}", id % 2),
        version: "0.1.0".to_owned(),
    }
}

fn cluster(brokers: u32) -> Image {
    let mut image = Image::default();
    let brokers = (1..=brokers).map(broker).collect();
    let command = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers,
        shards_per_broker: 0,
    };
    assert_eq!(image.apply(&command), MetadataReply::Done);
    image
}

fn create(name: &str, partitions: u32, replication_factor: u32) -> MetadataCommand {
    let (name, configs) = (name.to_owned(), BTreeMap::new());
    MetadataCommand::CreateTopic {
        name,
        partitions,
        replication_factor,
        configs,
    }
}

fn refusal(reply: MetadataReply) -> Refusal {
    match reply {
        MetadataReply::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn three_founders_get_even_shards_of_class_three_and_one() {
    let image = cluster(3);
    for (class, per_broker) in [(3usize, 8), (1, 2)] {
        let mut led: BTreeMap<NodeId, u32> = BTreeMap::new();
        for shard in image.shards().filter(|shard| shard.replicas.len() == class) {
            *led.entry(shard.preferred_leader.expect("preferred"))
                .or_default() += 1;
        }
        assert_eq!(led.values().copied().collect::<Vec<_>>(), [per_broker; 3]);
    }
}

/// Also those of classes that the cluster grows into.
#[test]
fn a_founding_says_how_many_shards_there_are_for_each_broker() {
    let create = |brokers: Vec<NewBroker>, shards_per_broker| MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers,
        shards_per_broker,
    };
    let count = |image: &Image, class| {
        let of_class = image.shards().filter(|shard| shard.class == class);
        of_class.count()
    };
    let mut image = Image::default();
    image.apply(&create(vec![broker(1)], 3));
    assert_eq!((count(&image, 1), count(&image, 3)), (2, 0));
    for id in [2, 3] {
        image.apply(&MetadataCommand::RegisterBroker(broker(id)));
    }
    image.apply(&MetadataCommand::StartPlan {
        kind: PlanKind::Rebalance,
        parallel: 1,
        accept_loss: false,
    });
    assert_eq!((count(&image, 1), count(&image, 3)), (2, 9));
    let mut image = Image::default();
    image.apply(&create((1..=3).map(broker).collect(), 1));
    assert_eq!((count(&image, 1), count(&image, 3)), (3, 3));

    let many = create(vec![broker(1)], MOST_SHARDS_PER_BROKER + 1);
    let refused = refusal(Image::default().apply(&many));
    assert!(refused.message.contains("at most 64"), "{refused:?}");
    let old = NewBroker {
        version: "0.0.9".to_owned(),
        ..broker(1)
    };
    let refused = refusal(Image::default().apply(&create(vec![old.clone()], 2)));
    assert!(refused.message.contains("0.0.9"), "{refused:?}");
    assert_eq!(
        Image::default().apply(&create(vec![old], 0)),
        MetadataReply::Done
    );
}

#[test]
fn no_shard_stands_in_one_rack_while_there_are_two() {
    let mut image = Image::default();
    let in_rack = |(id, rack): (u32, &str)| NewBroker {
        rack: rack.to_owned(),
        ..broker(id)
    };
    let brokers = (1..).zip(["a", "a", "a", "b"]).map(in_rack).collect();
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers,
        shards_per_broker: 0,
    });
    for shard in image.shards().filter(|shard| shard.replicas.len() == 3) {
        assert!(
            shard.replicas.contains(&NodeId(4)),
            "shard {} is all in rack a",
            shard.id
        );
    }
}

#[test]
fn leaders_of_a_topic_are_spread_evenly() {
    let mut image = cluster(3);
    for (name, partitions) in [("a", 6), ("b", 1), ("c", 24), ("d", 7)] {
        let reply = image.apply(&create(name, partitions, 3));
        assert!(matches!(reply, MetadataReply::TopicCreated { .. }));
        let topic = image.topic_by_name(name).expect("made");
        let mut led: BTreeMap<NodeId, u32> = BTreeMap::new();
        for shard in topic.shards() {
            let shard = image.shard(shard).expect("known");
            *led.entry(shard.preferred_leader.expect("preferred"))
                .or_default() += 1;
        }
        let (least, most) = (partitions / 3, partitions.div_ceil(3));
        assert!(
            led.values().all(|n| (least.max(1)..=most).contains(n)),
            "{name}: {led:?}"
        );
    }
}

#[test]
fn a_cluster_is_created_once() {
    let mut image = cluster(3);
    let again = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: vec![],
        shards_per_broker: 0,
    };
    assert_eq!(image.apply(&again), MetadataReply::Done);
    assert_eq!(image.brokers().count(), 3);
    let other = MetadataCommand::CreateCluster {
        cluster_id: "d".to_owned(),
        brokers: vec![],
        shards_per_broker: 0,
    };
    assert_eq!(refusal(image.apply(&other)).code, ErrorCode::InvalidRequest);
}

#[test]
fn another_disk_under_a_known_id_is_refused_and_an_address_may_change() {
    let mut image = cluster(3);
    let mut wiped = broker(2);
    wiped.incarnation = "new".to_owned();
    let refused = refusal(image.apply(&MetadataCommand::RegisterBroker(wiped)));
    assert!(
        refused.message.contains("another data directory"),
        "{}",
        refused.message
    );
    let mut moved = broker(2);
    moved.address = "elsewhere:1".to_owned();
    assert_eq!(
        image.apply(&MetadataCommand::RegisterBroker(moved)),
        MetadataReply::Done
    );
    assert_eq!(
        image.broker(NodeId(2)).expect("known").address,
        "elsewhere:1"
    );
    // Addresses may be handed round: the one that another broker had is no claim of its own.
    let mut swapped = broker(3);
    swapped.address = "b2:9094".to_owned();
    assert_eq!(
        image.apply(&MetadataCommand::RegisterBroker(swapped)),
        MetadataReply::Done
    );
}

#[test]
fn what_a_broker_said_before_the_cluster_was_written_down_stays() {
    let mut image = Image::default();
    let mut early = broker(2);
    early.address = "newer:1".to_owned();
    assert_eq!(
        image.apply(&MetadataCommand::RegisterBroker(early)),
        MetadataReply::Done
    );
    let brokers = (1..=3).map(broker).collect();
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers,
        shards_per_broker: 0,
    });
    assert_eq!(image.broker(NodeId(2)).expect("known").address, "newer:1");
    assert_eq!(image.brokers().count(), 3);
}

#[test]
fn nothing_is_founded_of_nothing() {
    let mut image = Image::default();
    let (cluster_id, brokers) = (String::new(), vec![]);
    let command = MetadataCommand::CreateCluster {
        cluster_id,
        brokers,
        shards_per_broker: 0,
    };
    assert_eq!(
        refusal(image.apply(&command)).code,
        ErrorCode::InvalidRequest
    );
    let none = MetadataCommand::AllocateProducerIds { count: 0 };
    assert_eq!(refusal(image.apply(&none)).code, ErrorCode::InvalidRequest);
}

#[test]
fn bad_topics_are_refused_with_a_stable_code() {
    let mut image = cluster(3);
    image.apply(&create("there", 1, 3));
    let with = |key: &str, value: &str| MetadataCommand::CreateTopic {
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 3,
        configs: BTreeMap::from([(key.to_owned(), value.to_owned())]),
    };
    let long = "x".repeat(250);
    for (command, code) in [
        (create("there", 1, 3), ErrorCode::TopicExists),
        (create("", 1, 3), ErrorCode::InvalidTopicName),
        (create("..", 1, 3), ErrorCode::InvalidTopicName),
        (create("a/b", 1, 3), ErrorCode::InvalidTopicName),
        (create(&long, 1, 3), ErrorCode::InvalidTopicName),
        (create("t", 0, 3), ErrorCode::InvalidRequest),
        (create("t", 1, 2), ErrorCode::InvalidRequest),
        (create("t", 1, 5), ErrorCode::NotEnoughBrokers),
        (with("retention.sm", "1"), ErrorCode::InvalidConfig),
        (with("retention.ms", "soon"), ErrorCode::InvalidConfig),
        (
            with("max.message.bytes", "999999999"),
            ErrorCode::InvalidConfig,
        ),
        (with("cleanup.policy", "shrink"), ErrorCode::InvalidConfig),
        (
            with("min.cleanable.dirty.ratio", "1.5"),
            ErrorCode::InvalidConfig,
        ),
        (with("delete.retention.ms", "-1"), ErrorCode::InvalidConfig),
        (with("min.insync.replicas", "2"), ErrorCode::Unsupported),
        (with("compression.type", "zstd"), ErrorCode::Unsupported),
    ] {
        let before = image.clone();
        assert_eq!(refusal(image.apply(&command)).code, code, "{command:?}");
        assert_eq!(image.validate(&command).expect_err("refused").code, code);
        assert_eq!(image, before);
    }
}

#[test]
fn a_topic_is_ready_when_every_partition_is_confirmed() {
    let mut image = cluster(3);
    image.apply(&create("t", 2, 3));
    let topic = image.topic_by_name("t").expect("made").id();
    for partition in [1, 1, 0] {
        assert!(!image.topic(topic).expect("made").is_ready());
        let partitions = vec![PartitionId(partition)];
        image.apply(&MetadataCommand::ConfirmPartitions { topic, partitions });
    }
    assert!(image.topic(topic).expect("made").is_ready());
}

#[test]
fn ids_are_never_given_twice() {
    let mut image = cluster(1);
    let mut firsts = Vec::new();
    for count in [10, 1, 1000] {
        match image.apply(&MetadataCommand::AllocateProducerIds { count }) {
            MetadataReply::ProducerIds { first, .. } => firsts.push(first),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(firsts, [ProducerId(0), ProducerId(10), ProducerId(11)]);
}

#[test]
fn topics_are_listed_page_by_page() {
    let mut image = cluster(3);
    for n in 0..25 {
        image.apply(&create(&format!("t{n:02}"), 1, 3));
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = image.topics_page(&token, "t", 10);
        seen.extend(page.topics.iter().map(|topic| topic.name().to_owned()));
        let Some(next) = page.next else { break };
        token = next;
    }
    assert_eq!(
        seen,
        (0..25).map(|n| format!("t{n:02}")).collect::<Vec<_>>()
    );
}

fn commands() -> impl Strategy<Value = MetadataCommand> {
    prop_oneof![
        (1u32..5, "[a-c]{1,2}", 0u32..9, 0u32..6)
            .prop_map(|(_, name, partitions, factor)| create(&name, partitions, factor)),
        (1u32..5).prop_map(|id| MetadataCommand::RegisterBroker(broker(id))),
        (0u32..40).prop_map(|shard| MetadataCommand::EstablishShard {
            shard: ShardId(shard)
        }),
        (1u64..6, 0u32..9).prop_map(|(topic, p)| MetadataCommand::ConfirmPartitions {
            topic: TopicId(topic),
            partitions: vec![PartitionId(p)],
        }),
        (1u32..2000).prop_map(|count| MetadataCommand::AllocateProducerIds { count }),
        (1u64..6).prop_map(|topic| MetadataCommand::DeleteTopic {
            topic: TopicId(topic)
        }),
        (1u64..6, 1u32..12).prop_map(|(topic, total)| MetadataCommand::AddPartitions {
            topic: TopicId(topic),
            total,
        }),
        (1u64..6, 0i64..3, any::<bool>()).prop_map(|(topic, ms, unset)| {
            let key = "retention.ms".to_owned();
            let unset: BTreeSet<String> = unset.then(|| key.clone()).into_iter().collect();
            let set = unset.is_empty().then(|| (key, ms.to_string()));
            MetadataCommand::AlterTopic {
                topic: TopicId(topic),
                set: set.into_iter().collect(),
                unset,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn snapshots_and_the_wire_change_nothing(
        commands in prop::collection::vec(commands(), 0..40),
        cut in 0usize..40,
    ) {
        let (mut a, mut b) = (cluster(3), cluster(3));
        for (n, command) in commands.iter().enumerate() {
            if n == cut {
                b = Image::decode_snapshot(&b.encode_snapshot()).expect("decoded");
            }
            let decoded = MetadataCommand::decode(&command.encode()).expect("decoded");
            prop_assert_eq!(&decoded, command);
            let reply = a.apply(command);
            prop_assert_eq!(&MetadataReply::decode(&reply.encode()).expect("decoded"), &reply);
            prop_assert_eq!(b.apply(&decoded), reply);
        }
        prop_assert_eq!(&a, &b);
        prop_assert_eq!(a.encode_snapshot(), b.encode_snapshot());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = MetadataCommand::decode(&bytes);
        let _ = MetadataReply::decode(&bytes);
        let _ = Image::decode_snapshot(&bytes);
    }
}

#[test]
fn groups_stay_in_their_shards_when_shards_are_added() {
    let mut image = cluster(3);
    let replicated: Vec<ShardId> = image
        .shards()
        .filter(|s| s.replicas.len() == 3)
        .map(|s| s.id)
        .collect();
    assert_eq!(image.group_shards(), replicated);
    let names: Vec<String> = (0..1000).map(|n| format!("group-{n}")).collect();
    let places = |image: &Image| -> Vec<ShardId> {
        let shard = |name: &String| image.group_shard(name).expect("a shard");
        names.iter().map(shard).collect()
    };
    let before = places(&image);
    let fewest = replicated
        .iter()
        .map(|s| before.iter().filter(|p| *p == s).count())
        .min();
    assert!(fewest > Some(15), "groups spread: {fewest:?}");
    // An image without the list, as earlier releases wrote it, says the same.
    let bytes = image.encode_snapshot();
    let restored = Image::decode_snapshot(&bytes).expect("own snapshot");
    assert_eq!(
        (restored.group_shards(), &restored),
        (image.group_shards(), &image)
    );
    let mut more = image.shard(replicated[0]).expect("there").clone();
    more.id = ShardId(900);
    image.shards.insert(more.id, more);
    assert_eq!(places(&image), before);
    let restored = Image::decode_snapshot(&image.encode_snapshot()).expect("own snapshot");
    assert_eq!(restored, image);
    assert_eq!(places(&restored), before);
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::WipedBrokerVotes,
        "tests::another_disk_under_a_known_id_is_refused_and_an_address_may_change",
    );
}

#[test]
fn what_becomes_of_old_records_is_read_as_kafka_writes_it() {
    let read = |configs: &[(&str, &str)]| {
        let configs = configs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        crate::TopicSettings::read(&configs.collect())
    };
    let defaults = read(&[]).expect("valid");
    let policy = |delete, compact| crate::CleanupPolicy { delete, compact };
    assert_eq!(defaults.cleanup, policy(true, false));
    assert_eq!(
        (defaults.delete_retention_ms, defaults.min_dirty_ppm),
        (86_400_000, 500_000)
    );
    for (value, expected) in [
        ("delete", policy(true, false)),
        ("compact", policy(false, true)),
        ("compact,delete", policy(true, true)),
        ("delete, compact", policy(true, true)),
    ] {
        let settings = read(&[("cleanup.policy", value)]).expect(value);
        assert_eq!(settings.cleanup, expected);
        assert_eq!(settings.write_limits().keyed, expected.compact);
    }
    let lags = [
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "9"),
    ];
    assert_eq!(
        read(&lags).expect_err("contradiction").code,
        ErrorCode::InvalidConfig
    );
}
