//! The bytes of all versions, as they lie on disks: encoders still write them, decoders still read
//! them. A file that has to change is a new format version, and the old file stays.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_metadata::{
    Floor, Image, MetadataCommand, MetadataLevel, MetadataReply, MoveStep, NewBroker, PlanKind,
    Refusal,
};
use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ProducerId, ShardId, TopicId};

/// The file's bytes, after holding `now` against them.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let stored = std::fs::read(path).unwrap_or_default();
    let hex: String = now.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        stored == now,
        "golden {name} differs from what is written now:\n{hex}"
    );
    stored
}

fn broker(id: u32, rack: &str) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}.example:9094"),
        incarnation: format!("{id:032x}"),
        rack: rack.to_owned(),
        version: "0.1.0".to_owned(),
    }
}

fn create_topic(name: &str, partitions: u32, replication_factor: u32) -> MetadataCommand {
    let configs = [
        ("retention.ms", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let configs: BTreeMap<String, String> = configs.into_iter().map(owned).collect();
    MetadataCommand::CreateTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        configs,
    }
}

fn commands() -> Vec<(&'static str, MetadataCommand)> {
    let create_cluster = MetadataCommand::CreateCluster {
        cluster_id: "0123456789abcdef0123456789abcdef".to_owned(),
        brokers: vec![broker(1, "a"), broker(2, "b"), broker(3, "")],
        shards_per_broker: 0,
    };
    let confirm = MetadataCommand::ConfirmPartitions {
        topic: TopicId(300),
        partitions: [0, 1, 200].map(PartitionId).to_vec(),
    };
    vec![
        ("v1.create_cluster.command", create_cluster),
        (
            "v1.register.command",
            MetadataCommand::RegisterBroker(broker(300, "b")),
        ),
        (
            "v1.establish.command",
            MetadataCommand::EstablishShard { shard: ShardId(24) },
        ),
        ("v1.create_topic.command", create_topic("orders", 6, 3)),
        ("v1.confirm.command", confirm),
        (
            "v1.producer_ids.command",
            MetadataCommand::AllocateProducerIds { count: 1000 },
        ),
    ]
}

/// An image with something in every field.
fn image() -> Image {
    let mut image = Image::default();
    for (_, command) in commands() {
        image.apply(&command);
    }
    image.apply(&create_topic("single", 2, 1));
    for (topic, partitions) in [(1, 0..6), (2, 0..1)] {
        image.apply(&MetadataCommand::ConfirmPartitions {
            topic: TopicId(topic),
            partitions: partitions.map(PartitionId).collect(),
        });
    }
    image
}

#[test]
fn commands_of_version_1() {
    for (name, command) in commands() {
        let stored = golden(name, &command.encode());
        assert_eq!(MetadataCommand::decode(&stored), Ok(command), "{name}");
    }
}

#[test]
fn replies_of_version_1() {
    let ids = MetadataReply::ProducerIds {
        first: ProducerId(70_000),
        count: 1000,
    };
    let refusal = Refusal {
        code: ErrorCode::TopicExists,
        message: "a topic named 'orders' exists already".to_owned(),
    };
    let replies = [
        ("v1.done.reply", MetadataReply::Done),
        (
            "v1.topic_created.reply",
            MetadataReply::TopicCreated {
                topic: TopicId(300),
            },
        ),
        ("v1.producer_ids.reply", ids),
        ("v1.refused.reply", MetadataReply::Refused(refusal)),
    ];
    for (name, reply) in replies {
        let stored = golden(name, &reply.encode());
        assert_eq!(MetadataReply::decode(&stored), Ok(reply), "{name}");
    }
}

#[test]
fn a_snapshot_of_version_1() {
    let image = image();
    let stored = golden("v1.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

fn commands_about_plans() -> Vec<(&'static str, MetadataCommand)> {
    let start = |kind| MetadataCommand::StartPlan {
        kind,
        parallel: 4,
        accept_loss: true,
    };
    let step = |step| MetadataCommand::AdvanceMove {
        plan: 1,
        shard: ShardId(1),
        step,
    };
    let floor = Floor {
        term: 300,
        index: 70_000,
    };
    vec![
        ("v2.rebalance.command", start(PlanKind::Rebalance)),
        ("v2.drain.command", start(PlanKind::Drain(NodeId(300)))),
        ("v2.replace.command", start(PlanKind::Replace(NodeId(3)))),
        (
            "v2.repair.command",
            start(PlanKind::Repair(NodeId(3), ShardId(300))),
        ),
        ("v2.expelled.command", step(MoveStep::Expelled)),
        ("v2.learn.command", step(MoveStep::Learn)),
        ("v2.floor.command", step(MoveStep::Floor(floor))),
        ("v2.done.command", step(MoveStep::Done)),
        ("v2.cancelled.command", step(MoveStep::Cancelled)),
        (
            "v2.cancel.command",
            MetadataCommand::CancelPlan { plan: 300 },
        ),
        (
            "v2.remove.command",
            MetadataCommand::RemoveBroker {
                broker: NodeId(300),
            },
        ),
        (
            "v2.confirm_expelled.command",
            MetadataCommand::ConfirmExpelled { broker: NodeId(3) },
        ),
    ]
}

/// A broker is being replaced: one shard is being filled, others have not begun.
fn image_with_a_plan() -> Image {
    let mut image = image();
    for shard in 1..=24 {
        image.apply(&MetadataCommand::EstablishShard {
            shard: ShardId(shard),
        });
    }
    let replace = MetadataCommand::StartPlan {
        kind: PlanKind::Replace(NodeId(3)),
        parallel: 4,
        accept_loss: true,
    };
    image.apply(&replace);
    image.apply(&MetadataCommand::ConfirmExpelled { broker: NodeId(3) });
    let mut fresh = broker(3, "");
    fresh.incarnation = "f".repeat(32);
    image.apply(&MetadataCommand::RegisterBroker(fresh));
    let floor = Floor {
        term: 300,
        index: 70_000,
    };
    for step in [MoveStep::Expelled, MoveStep::Learn, MoveStep::Floor(floor)] {
        image.apply(&MetadataCommand::AdvanceMove {
            plan: 1,
            shard: ShardId(1),
            step,
        });
    }
    image
}

#[test]
fn commands_and_replies_about_plans() {
    for (name, command) in commands_about_plans() {
        let stored = golden(name, &command.encode());
        assert_eq!(MetadataCommand::decode(&stored), Ok(command), "{name}");
    }
    let reply = MetadataReply::PlanStarted { plan: 300 };
    let stored = golden("v2.plan_started.reply", &reply.encode());
    assert_eq!(MetadataReply::decode(&stored), Ok(reply));
}

#[test]
fn a_snapshot_of_version_2() {
    let image = image_with_a_plan();
    let shard = image.shard(ShardId(1)).expect("known");
    assert!(!shard.learners.is_empty() && image.running_plan().is_some());
    let stored = golden("v2.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

fn commands_about_topics() -> Vec<(&'static str, MetadataCommand)> {
    let topic = TopicId(2);
    let alter = MetadataCommand::AlterTopic {
        topic,
        set: [("retention.ms".to_owned(), "60000".to_owned())].into(),
        unset: ["segment.bytes".to_owned()].into(),
    };
    vec![
        (
            "v3.delete_topic.command",
            MetadataCommand::DeleteTopic {
                topic: TopicId(300),
            },
        ),
        ("v3.alter_topic.command", alter),
        (
            "v3.add_partitions.command",
            MetadataCommand::AddPartitions { topic, total: 5 },
        ),
    ]
}

#[test]
fn commands_about_topics_and_a_snapshot_of_version_3() {
    let mut image = image_with_a_plan();
    image.apply(&MetadataCommand::ConfirmPartitions {
        topic: TopicId(2),
        partitions: vec![PartitionId(1)],
    });
    for (name, command) in commands_about_topics() {
        let stored = golden(name, &command.encode());
        assert_eq!(
            MetadataCommand::decode(&stored),
            Ok(command.clone()),
            "{name}"
        );
        image.apply(&command);
    }
    let topic = image.topic(TopicId(2)).expect("there");
    assert!(topic.config_version() == 1 && !topic.is_complete());
    let stored = golden("v3.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

#[test]
fn a_raised_level_and_a_snapshot_of_version_4() {
    let raise = MetadataCommand::RaiseLevel {
        level: MetadataLevel::GATED,
    };
    let stored = golden("v4.raise_level.command", &raise.encode());
    assert_eq!(MetadataCommand::decode(&stored), Ok(raise.clone()));
    let mut image = image();
    image.apply(&raise);
    assert_eq!(image.level(), MetadataLevel::GATED);
    let stored = golden("v4.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

fn commands_about_moves() -> Vec<(&'static str, MetadataCommand)> {
    let start = |kind| MetadataCommand::StartPlan {
        kind,
        parallel: 4,
        accept_loss: false,
    };
    let advance = |step| MetadataCommand::AdvancePartition {
        plan: 300,
        topic: TopicId(1),
        partition: PartitionId(200),
        step,
    };
    let moved = PlanKind::MovePartition(TopicId(1), PartitionId(2), ShardId(1));
    vec![
        ("v5.move_partition.command", start(moved)),
        (
            "v5.replicate.command",
            start(PlanKind::Replicate(TopicId(2), 3)),
        ),
        ("v5.copied.command", advance(MoveStep::Learn)),
        ("v5.moved.command", advance(MoveStep::Done)),
    ]
}

#[test]
fn commands_about_moves_and_a_snapshot_of_version_5() {
    for (name, command) in commands_about_moves() {
        let stored = golden(name, &command.encode());
        assert_eq!(MetadataCommand::decode(&stored), Ok(command), "{name}");
    }
    let mut image = image();
    let level = MetadataLevel::MOVES;
    image.apply(&MetadataCommand::RaiseLevel { level });
    image.apply(&MetadataCommand::EstablishShard { shard: ShardId(1) });
    let kinds = commands_about_moves();
    image.apply(&kinds[0].1);
    for step in [MoveStep::Learn, MoveStep::Done] {
        image.apply(&MetadataCommand::AdvancePartition {
            plan: 1,
            topic: TopicId(1),
            partition: PartitionId(2),
            step,
        });
    }
    image.apply(&MetadataCommand::ConfirmPartitions {
        topic: TopicId(2),
        partitions: vec![PartitionId(1)],
    });
    image.apply(&kinds[1].1);
    let topic = image.topic(TopicId(1)).expect("there");
    assert_eq!(topic.arrival(PartitionId(2)), 1);
    assert_eq!(
        image.running_plan().map(|plan| plan.partitions.len()),
        Some(2)
    );
    let stored = golden("v5.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

/// The only replicas of two shards were lost, and one of them was begun anew.
#[test]
fn a_shard_that_was_begun_anew_and_a_snapshot_of_version_6() {
    let mut image = image_with_a_plan();
    let level = MetadataLevel::MOVES;
    image.apply(&MetadataCommand::RaiseLevel { level });
    let plan = image.running_plan().expect("runs");
    let lost = plan.moves.iter().find(|step| step.lost).expect("one").shard;
    image.apply(&MetadataCommand::AdvanceMove {
        plan: 1,
        shard: lost,
        step: MoveStep::Learn,
    });
    let shard = image.shard(lost).expect("known");
    assert_eq!((shard.beginning, shard.established), (1, false));
    let stored = golden("v6.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}

/// A cluster whose founding asked for fewer shards.
#[test]
fn a_founding_that_asks_for_shards_and_a_snapshot_of_version_7() {
    let mut image = Image::default();
    let create = MetadataCommand::CreateCluster {
        cluster_id: "0123456789abcdef0123456789abcdef".to_owned(),
        brokers: vec![broker(1, "a"), broker(2, "b"), broker(3, "")],
        shards_per_broker: 2,
    };
    let stored = golden("v7.create_cluster.command", &create.encode());
    assert_eq!(MetadataCommand::decode(&stored), Ok(create.clone()));
    image.apply(&create);
    assert_eq!(
        (image.shards().count(), image.level()),
        (12, MetadataLevel::SIZED)
    );
    let stored = golden("v7.snapshot", &image.encode_snapshot());
    assert_eq!(Image::decode_snapshot(&stored), Ok(image));
}
