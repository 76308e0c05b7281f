//! Partitions go to other shards: what is planned, what is written down, what is refused.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::NodeId;

use super::*;
use crate::plan_tests::{done, establish, refusal};
use crate::{MetadataCommand, MetadataLevel, NewBroker, Plan, PlanKind};

const TOPIC: TopicId = TopicId(1);

fn broker(id: u32) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}:9094"),
        incarnation: format!("inc-{id}"),
        rack: String::new(),
        version: "0.1.0".to_owned(),
    }
}

/// Brokers, and a topic of six partitions.
fn cluster(brokers: u32, factor: u32) -> Image {
    let mut image = Image::default();
    let create = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: (1..=brokers).map(broker).collect(),
        shards_per_broker: 0,
    };
    done(&mut image, &create);
    establish(&mut image);
    let level = MetadataLevel::LATEST;
    done(&mut image, &MetadataCommand::RaiseLevel { level });
    topic(&mut image, "orders", (6, factor), BTreeMap::new());
    image
}

fn topic(
    image: &mut Image,
    name: &str,
    (partitions, replication_factor): (u32, u32),
    configs: BTreeMap<String, String>,
) {
    let created = image.apply(&MetadataCommand::CreateTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        configs,
    });
    let MetadataReply::TopicCreated { topic } = created else {
        panic!("{created:?}")
    };
    let partitions = (0..partitions).map(PartitionId).collect();
    let confirm = MetadataCommand::ConfirmPartitions { topic, partitions };
    done(image, &confirm);
}

fn start(kind: PlanKind) -> MetadataCommand {
    MetadataCommand::StartPlan {
        kind,
        parallel: 2,
        accept_loss: false,
    }
}

fn step(plan: u64, moved: &PartitionMove, step: MoveStep) -> MetadataCommand {
    MetadataCommand::AdvancePartition {
        plan,
        topic: moved.topic,
        partition: moved.partition,
        step,
    }
}

fn plan(image: &Image) -> Plan {
    image.plan().map(|plan| Plan::clone(plan)).expect("a plan")
}

/// The shard of partition 0, and another one of its class.
fn places(image: &Image) -> (ShardId, ShardId) {
    let topic = image.topic(TOPIC).expect("there");
    let from = topic.shard_of(PartitionId(0)).expect("placed");
    let class = image.shard(from).expect("known").class;
    let mut others = image.shards().filter(|s| s.class == class && s.id != from);
    (from, others.next().expect("another").id)
}

fn counts(image: &Image) -> BTreeMap<ShardId, u32> {
    let mut counts: BTreeMap<ShardId, u32> = image.shards().map(|s| (s.id, 0)).collect();
    for shard in image.topics().flat_map(|topic| topic.shards()) {
        *counts.entry(shard).or_default() += 1;
    }
    for shard in image.shards() {
        assert_eq!(counts[&shard.id], shard.partitions, "{shard:?}");
    }
    counts
}

#[test]
fn one_entry_says_where_a_partition_is() {
    let mut image = cluster(3, 3);
    let (from, to) = places(&image);
    let moved = PlanKind::MovePartition(TOPIC, PartitionId(0), to);
    done(&mut image, &start(moved));
    let running = plan(&image);
    let [wanted] = running.partitions[..] else {
        panic!("{running:?}")
    };
    assert_eq!((wanted.from, wanted.to), (from, to));
    let before = counts(&image);
    // What was not begun cannot be done.
    for late in [MoveStep::Done, MoveStep::Expelled] {
        done(&mut image, &step(running.id, &wanted, late));
    }
    assert_eq!(plan(&image).partitions[0].state, MoveState::Waiting);
    for _ in 0..2 {
        done(&mut image, &step(running.id, &wanted, MoveStep::Learn));
        assert_eq!(plan(&image).partitions[0].state, MoveState::Learning);
        assert_eq!(counts(&image), before);
        assert_eq!(
            image.topic(TOPIC).expect("there").arrival(PartitionId(0)),
            0
        );
    }
    assert!(image.has_heard_of_plan(running.id) && !image.has_heard_of_plan(running.id + 1));
    for _ in 0..2 {
        done(&mut image, &step(running.id, &wanted, MoveStep::Done));
        let topic = image.topic(TOPIC).expect("there");
        assert_eq!(topic.shard_of(PartitionId(0)), Some(to));
        assert_eq!(topic.arrival(PartitionId(0)), running.id);
        assert_eq!(topic.arrival(PartitionId(1)), 0);
    }
    assert!(image.running_plan().is_none());
    let after = counts(&image);
    assert_eq!(after[&from] + 1, before[&from]);
    assert_eq!(after[&to], before[&to] + 1);
    // There already: nothing to do.
    done(&mut image, &start(moved));
    assert!(image.running_plan().is_none());
}

#[test]
fn cancelled_at_any_time_it_is_where_it_was_and_nobody_can_finish_it() {
    for begun in [false, true] {
        let mut image = cluster(3, 3);
        let (from, to) = places(&image);
        let moved = PlanKind::MovePartition(TOPIC, PartitionId(0), to);
        done(&mut image, &start(moved));
        let running = plan(&image);
        let wanted = running.partitions[0];
        if begun {
            done(&mut image, &step(running.id, &wanted, MoveStep::Learn));
        }
        done(
            &mut image,
            &MetadataCommand::CancelPlan { plan: running.id },
        );
        assert!(image.running_plan().is_none());
        for late in [MoveStep::Learn, MoveStep::Done] {
            refusal(&mut image, &step(running.id, &wanted, late));
        }
        let topic = image.topic(TOPIC).expect("there");
        assert_eq!(topic.shard_of(PartitionId(0)), Some(from));
        // The next plan has another number, and what is late is not about it.
        done(&mut image, &start(moved));
        assert_eq!(plan(&image).id, running.id + 1);
        refusal(&mut image, &step(running.id, &wanted, MoveStep::Learn));
    }
}

#[test]
fn a_topic_gets_more_replicas_when_all_its_partitions_have_them() {
    let mut image = cluster(1, 1);
    let replicate = start(PlanKind::Replicate(TOPIC, 3));
    let few = refusal(&mut image, &replicate);
    assert_eq!(few.code, ErrorCode::NotEnoughBrokers);
    for id in [2, 3] {
        done(&mut image, &MetadataCommand::RegisterBroker(broker(id)));
    }
    let none = refusal(&mut image, &replicate);
    assert!(none.message.contains("rebalance"), "{none:?}");
    done(&mut image, &start(PlanKind::Rebalance));
    while let Some(running) = image.running_plan().cloned() {
        let next = running.current()[0].clone();
        for what in [MoveStep::Learn, MoveStep::Done] {
            done(
                &mut image,
                &MetadataCommand::AdvanceMove {
                    plan: running.id,
                    shard: next.shard,
                    step: what,
                },
            );
        }
    }
    done(&mut image, &replicate);
    let running = plan(&image);
    assert_eq!(running.partitions.len(), 6);
    let targets: BTreeSet<ShardId> = running.partitions.iter().map(|step| step.to).collect();
    assert_eq!(targets.len(), 6, "spread over as many shards");
    let first = running.partitions[0];
    let early = refusal(&mut image, &step(running.id, &first, MoveStep::Learn));
    assert_eq!(early.code, ErrorCode::ClusterNotReady, "no leader yet");
    establish(&mut image);

    // Cancelled half-way, the rest is moved by the next plan.
    for what in [MoveStep::Learn, MoveStep::Done] {
        done(&mut image, &step(running.id, &first, what));
    }
    done(
        &mut image,
        &MetadataCommand::CancelPlan { plan: running.id },
    );
    assert_eq!(image.topic(TOPIC).expect("there").replication_factor(), 1);
    done(&mut image, &replicate);
    assert_eq!(plan(&image).partitions.len(), 5);
    while let Some(running) = image.running_plan().cloned() {
        let current = running.current_partitions();
        assert!(!current.is_empty() && current.len() <= 2);
        for what in [MoveStep::Learn, MoveStep::Done] {
            done(&mut image, &step(running.id, &current[0], what));
        }
    }
    let topic = image.topic(TOPIC).expect("there");
    assert_eq!(topic.replication_factor(), 3);
    let classes = topic
        .shards()
        .map(|id| image.shard(id).expect("known").class);
    assert_eq!(classes.collect::<BTreeSet<_>>(), [3].into());
    counts(&image);
    let fewer = refusal(&mut image, &start(PlanKind::Replicate(TOPIC, 1)));
    assert!(fewer.message.contains("shrink"), "{fewer:?}");
}

#[test]
fn what_cannot_be_moved_is_refusal() {
    let mut image = cluster(3, 3);
    let (_, to) = places(&image);
    let moved = |topic, partition, to| {
        start(PlanKind::MovePartition(
            TopicId(topic),
            PartitionId(partition),
            to,
        ))
    };
    let single = image
        .shards()
        .find(|shard| shard.class == 1)
        .expect("one")
        .id;
    for (command, code) in [
        (moved(9, 0, to), ErrorCode::UnknownTopic),
        (moved(1, 6, to), ErrorCode::UnknownPartition),
        (moved(1, 0, ShardId(999)), ErrorCode::InvalidRequest),
        (moved(1, 0, single), ErrorCode::InvalidRequest),
        (
            start(PlanKind::Replicate(TOPIC, 2)),
            ErrorCode::InvalidRequest,
        ),
        (
            start(PlanKind::Replicate(TOPIC, 5)),
            ErrorCode::NotEnoughBrokers,
        ),
    ] {
        assert_eq!(refusal(&mut image, &command).code, code, "{command:?}");
    }
    let compact = [("cleanup.policy".to_owned(), "compact".to_owned())];

    // And what must not happen on the way.
    done(&mut image, &moved(1, 0, to));
    let alter = MetadataCommand::AlterTopic {
        topic: TOPIC,
        set: compact.into(),
        unset: BTreeSet::new(),
    };
    let grow = MetadataCommand::AddPartitions {
        topic: TOPIC,
        total: 8,
    };
    for command in [alter, grow, moved(1, 1, to), start(PlanKind::Rebalance)] {
        let why = refusal(&mut image, &command);
        assert!(why.message.contains("plan 1"), "{why:?}");
    }
    let set = [("retention.ms".to_owned(), "5000".to_owned())].into();
    let (topic, unset) = (TOPIC, BTreeSet::new());
    done(
        &mut image,
        &MetadataCommand::AlterTopic { topic, set, unset },
    );
}

#[test]
fn what_is_compacted_moves_once_every_broker_knows_how() {
    let mut image = cluster(3, 3);
    let (_, to) = places(&image);
    let compact = [("cleanup.policy".to_owned(), "compact".to_owned())];
    topic(&mut image, "latest", (1, 3), compact.into());
    let id = TopicId(2);
    let from = image
        .topic(id)
        .and_then(|topic| topic.shard_of(PartitionId(0)));
    let to = if from == Some(to) {
        places(&image).0
    } else {
        to
    };
    let moved = start(PlanKind::MovePartition(id, PartitionId(0), to));
    let mut before = image.clone();
    before.level = MetadataLevel::MOVES;
    assert_eq!(
        refusal(&mut before, &moved).code,
        ErrorCode::ClusterNotReady
    );

    done(&mut image, &moved);
    // It is held while it is copied: its other settings may change.
    let set = [("retention.ms".to_owned(), "5000".to_owned())].into();
    let unset = BTreeSet::new();
    let alter = MetadataCommand::AlterTopic {
        topic: id,
        set,
        unset,
    };
    done(&mut image, &alter);
    before = image.clone();
    before.level = MetadataLevel::MOVES;
    let why = refusal(&mut before, &alter);
    assert!(
        why.message.contains("plan 1"),
        "as older releases do: {why:?}"
    );
}

#[test]
fn a_deleted_topic_ends_its_moves() {
    let mut image = cluster(3, 3);
    let (_, to) = places(&image);
    done(
        &mut image,
        &start(PlanKind::MovePartition(TOPIC, PartitionId(0), to)),
    );
    done(&mut image, &MetadataCommand::DeleteTopic { topic: TOPIC });
    assert!(image.running_plan().is_none());
    let ended = plan(&image);
    assert_eq!(ended.partitions[0].state, MoveState::Cancelled);
    let (wanted, id) = (ended.partitions[0], ended.id);
    refusal(&mut image, &step(id, &wanted, MoveStep::Done));
    counts(&image);
}

#[test]
fn below_its_level_nothing_is_moved() {
    let mut image = Image::default();
    done(
        &mut image,
        &MetadataCommand::CreateCluster {
            cluster_id: "c".to_owned(),
            brokers: (1..=3).map(broker).collect(),
            shards_per_broker: 0,
        },
    );
    topic(&mut image, "orders", (1, 3), BTreeMap::new());
    let (_, to) = places(&image);
    let moved = start(PlanKind::MovePartition(TOPIC, PartitionId(0), to));
    assert_eq!(refusal(&mut image, &moved).code, ErrorCode::ClusterNotReady);
}
