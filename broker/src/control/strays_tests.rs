//! What a move leaves behind is put right, and never by somebody who does not know better.

use std::collections::BTreeMap;

use highwater_metadata::{MetadataCommand, MetadataLevel, MoveStep as Step, NewBroker, PlanKind};
use highwater_proto::{NodeId, PartitionId, TopicId};

use super::*;

const TOPIC: TopicId = TopicId(1);

fn tp() -> TopicPartition {
    TopicPartition::new(TOPIC, PartitionId(0))
}

fn cluster() -> Image {
    let mut image = Image::default();
    let broker = |id| NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}:9094"),
        incarnation: format!("inc-{id}"),
        rack: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: (1..=3).map(broker).collect(),
        shards_per_broker: 0,
    });
    let level = MetadataLevel::LATEST;
    image.apply(&MetadataCommand::RaiseLevel { level });
    let shards: Vec<ShardId> = image.shards().map(|shard| shard.id).collect();
    for shard in shards {
        image.apply(&MetadataCommand::EstablishShard { shard });
    }
    image.apply(&MetadataCommand::CreateTopic {
        name: "orders".to_owned(),
        partitions: 1,
        replication_factor: 3,
        configs: BTreeMap::new(),
    });
    image.apply(&MetadataCommand::ConfirmPartitions {
        topic: TOPIC,
        partitions: vec![PartitionId(0)],
    });
    image
}

fn at(image: &Image) -> ShardId {
    let topic = image.topic(TOPIC).expect("there");
    topic.shard_of(PartitionId(0)).expect("placed")
}

fn another(image: &Image) -> ShardId {
    let from = at(image);
    let to = image.shards().find(|s| s.class == 3 && s.id != from);
    to.expect("another").id
}

fn start(image: &mut Image, to: ShardId) {
    let kind = PlanKind::MovePartition(TOPIC, PartitionId(0), to);
    image.apply(&MetadataCommand::StartPlan {
        kind,
        parallel: 1,
        accept_loss: false,
    });
    assert!(image.running_plan().is_some());
}

fn advance(image: &mut Image, plan: u64, step: Step) {
    image.apply(&MetadataCommand::AdvancePartition {
        plan,
        topic: TOPIC,
        partition: PartitionId(0),
        step,
    });
}

fn found(shard: ShardId, arrival: u64) -> Found {
    Found {
        tp: tp(),
        shard,
        arrival,
        importing: false,
        leaves_by: None,
    }
}

fn astray(plan: u64, step: MoveStep) -> Judged {
    let tp = tp();
    Judged::Astray(MoveCommand { tp, plan, step })
}

#[test]
fn what_goes_on_is_left_alone_and_what_has_ended_is_put_right() {
    let mut image = cluster();
    let (from, to) = (at(&image), another(&image));
    let served = found(from, 0);
    let copy = Found {
        importing: true,
        ..found(to, 1)
    };
    let fenced = Found {
        leaves_by: Some(1),
        ..served
    };
    let whole = found(to, 1);
    // An image from before the plan knows of nothing, and undoes nothing.
    assert_eq!(due(&image, &served), Judged::Belongs);
    for found in [&copy, &fenced, &whole] {
        assert_eq!(due(&image, found), Judged::Moves);
    }
    assert!(!is_gone(&image, tp(), 1) && !is_gone(&image, tp(), 0));

    start(&mut image, to);
    for begun in [false, true] {
        if begun {
            advance(&mut image, 1, Step::Learn);
        }
        assert_eq!(due(&image, &served), Judged::Belongs);
        for found in [&copy, &fenced, &whole] {
            assert_eq!(due(&image, found), Judged::Moves);
        }
        assert!(!is_gone(&image, tp(), 1) && !is_gone(&image, tp(), 0));
    }
    let mut cancelled = image.clone();
    cancelled.apply(&MetadataCommand::CancelPlan { plan: 1 });
    assert_eq!(due(&cancelled, &served), Judged::Belongs);
    assert_eq!(due(&cancelled, &fenced), astray(1, MoveStep::Release));
    for found in [&copy, &whole] {
        assert_eq!(due(&cancelled, found), astray(1, MoveStep::Forget));
    }
    assert!(is_gone(&cancelled, tp(), 1) && !is_gone(&cancelled, tp(), 0));

    advance(&mut image, 1, Step::Done);
    assert_eq!(due(&image, &whole), Judged::Belongs);
    for found in [&served, &fenced] {
        assert_eq!(due(&image, found), astray(0, MoveStep::Forget));
    }
    assert!(is_gone(&image, tp(), 0) && !is_gone(&image, tp(), 1));
}

#[test]
fn what_it_left_the_first_time_goes_before_it_comes_back() {
    let mut image = cluster();
    let (from, to) = (at(&image), another(&image));
    start(&mut image, to);
    advance(&mut image, 1, Step::Learn);
    advance(&mut image, 1, Step::Done);
    let whole = found(to, 1);
    let fenced = Found {
        leaves_by: Some(1),
        ..found(from, 0)
    };
    start(&mut image, from);
    assert_eq!(due(&image, &fenced), astray(0, MoveStep::Forget));
    let back = Found {
        importing: true,
        ..found(from, 2)
    };
    let leaves = Found {
        leaves_by: Some(2),
        ..whole
    };
    for found in [&back, &leaves] {
        assert_eq!(due(&image, found), Judged::Moves);
    }
    // A fence of the first move that comes late is none of the second.
    let late = Found {
        leaves_by: Some(1),
        ..whole
    };
    assert_eq!(due(&image, &late), astray(1, MoveStep::Release));

    image.apply(&MetadataCommand::DeleteTopic { topic: TOPIC });
    for found in [&back, &leaves] {
        assert_eq!(due(&image, found), Judged::Belongs, "its topic deletes it");
    }
    assert!(is_gone(&image, tp(), 2));
}

#[test]
fn a_copy_whose_move_is_done_is_whole_whatever_a_new_leader_has_applied() {
    let mut image = cluster();
    let to = another(&image);
    start(&mut image, to);
    let copy = Found {
        importing: true,
        ..found(to, 1)
    };
    for step in [Step::Learn, Step::Done] {
        assert_eq!(due(&image, &copy), Judged::Moves, "before {step:?}");
        advance(&mut image, 1, step);
    }
    assert_eq!(at(&image), to);
    assert_eq!(due(&image, &copy), Judged::Moves, "others serve it");
    assert_eq!(due(&image, &found(to, 1)), Judged::Belongs);
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::ForgetsArrivals,
        "control::strays::tests::a_copy_whose_move_is_done_is_whole_whatever_a_new_leader_has_applied",
    );
}
