//! Brokers come and go: plans, their steps, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::{NodeId, PartitionId, ShardId};

use crate::{
    BrokerState, Floor, Image, MetadataCommand, MetadataReply, MoveState, MoveStep, NewBroker,
    PlanKind, Refusal,
};

fn broker(id: u32, rack: &str) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}:9094"),
        incarnation: format!("inc-{id}"),
        rack: rack.to_owned(),
        version: "0.1.0".to_owned(),
    }
}

fn cluster(racks: &[&str]) -> Image {
    let mut image = Image::default();
    let brokers = (1..)
        .zip(racks)
        .map(|(id, rack)| broker(id, rack))
        .collect();
    done(
        &mut image,
        &MetadataCommand::CreateCluster {
            cluster_id: "c".to_owned(),
            brokers,
            shards_per_broker: 0,
        },
    );
    establish(&mut image);
    image
}

pub(crate) fn establish(image: &mut Image) {
    let shards: Vec<ShardId> = image.shards().map(|shard| shard.id).collect();
    for shard in shards {
        done(image, &MetadataCommand::EstablishShard { shard });
    }
}

pub(crate) fn done(image: &mut Image, command: &MetadataCommand) {
    let reply = image.apply(command);
    assert!(!matches!(reply, MetadataReply::Refused(_)), "{reply:?}");
    // What is stored is what was.
    let stored = Image::decode_snapshot(&image.encode_snapshot()).expect("decodes");
    assert_eq!(&stored, image);
    let again = MetadataCommand::decode(&command.encode()).expect("decodes");
    assert_eq!(&again, command);
}

pub(crate) fn refusal(image: &mut Image, command: &MetadataCommand) -> Refusal {
    let before = image.clone();
    let MetadataReply::Refused(refusal) = image.apply(command) else {
        panic!("{command:?} was not refused");
    };
    assert_eq!(image, &before, "a refusal changes nothing");
    assert!(!refusal.message.contains('\n'));
    refusal
}

fn refused(image: &mut Image, command: &MetadataCommand) -> String {
    refusal(image, command).message
}

fn start(kind: PlanKind) -> MetadataCommand {
    MetadataCommand::StartPlan {
        kind,
        parallel: 4,
        accept_loss: false,
    }
}

fn step(plan: u64, shard: ShardId, step: MoveStep) -> MetadataCommand {
    MetadataCommand::AdvanceMove { plan, shard, step }
}

/// Drives the running plan as a controller would, every step written down twice.
fn drive(image: &mut Image) {
    while let Some(plan) = image.running_plan().cloned() {
        let current = plan.current();
        assert!(!current.is_empty() && current.len() <= plan.parallel as usize);
        let shards: BTreeSet<ShardId> = current.iter().map(|step| step.shard).collect();
        assert_eq!(
            shards.len(),
            current.len(),
            "one change of a shard at a time"
        );
        let next = current[0];
        let what = match next.state {
            MoveState::Expelling => MoveStep::Expelled,
            MoveState::Waiting => MoveStep::Learn,
            MoveState::Learning if plan.cancelled => MoveStep::Cancelled,
            MoveState::Learning => MoveStep::Done,
            MoveState::Done | MoveState::Cancelled => unreachable!("not open"),
        };
        done(image, &step(plan.id, next.shard, what));
    }
}

fn loads(image: &Image, class: u32) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for shard in image.shards().filter(|shard| shard.class == class) {
        assert_eq!(shard.replicas.len(), class as usize, "{shard:?}");
        assert!(shard.learners.is_empty());
        for node in &shard.replicas {
            *loads.entry(*node).or_default() += 1;
        }
    }
    loads
}

fn leads(image: &Image, class: u32) -> BTreeMap<NodeId, usize> {
    let mut leads = BTreeMap::new();
    for shard in image.shards().filter(|shard| shard.class == class) {
        let leader = shard.preferred_leader.expect("one");
        assert!(shard.replicas.contains(&leader));
        *leads.entry(leader).or_default() += 1;
    }
    leads
}

#[test]
fn a_fourth_broker_gets_its_share_and_nothing_else_moves() {
    let mut image = cluster(&["a", "b", "c"]);
    done(&mut image, &MetadataCommand::RegisterBroker(broker(4, "d")));
    done(&mut image, &start(PlanKind::Rebalance));
    let plan = image.running_plan().expect("runs").clone();
    assert!(plan.moves.iter().all(|step| step.add == NodeId(4)));
    assert_eq!(plan.moves.len(), 18 + 1);
    assert!(refused(&mut image, &start(PlanKind::Rebalance)).contains("is running"));
    drive(&mut image);
    assert!(loads(&image, 3).values().all(|load| *load == 18));
    assert!(
        leads(&image, 3).values().all(|leads| *leads == 6),
        "{:?}",
        leads(&image, 3)
    );
    assert!(loads(&image, 1).values().all(|load| (1..=2).contains(load)));
    done(&mut image, &start(PlanKind::Rebalance));
    assert!(image.running_plan().is_none(), "nothing to do");
}

#[test]
fn a_shard_never_gets_two_replicas_in_a_rack_while_there_are_others() {
    let mut image = cluster(&["a", "b", "c"]);
    done(&mut image, &MetadataCommand::RegisterBroker(broker(4, "a")));
    done(&mut image, &start(PlanKind::Rebalance));
    drive(&mut image);
    for shard in image.shards().filter(|shard| shard.class == 3) {
        let racks: BTreeSet<&str> = shard
            .replicas
            .iter()
            .map(|node| image.broker(*node).expect("known").rack.as_str())
            .collect();
        assert_eq!(racks.len(), 3, "{shard:?}");
    }
    let loads = loads(&image, 3);
    assert_eq!(loads[&NodeId(1)], 12);
    assert_eq!(loads[&NodeId(4)], 12);
}

#[test]
fn a_broker_is_drained_and_removed_and_its_directory_never_comes_back() {
    let mut image = cluster(&["", "", ""]);
    let short = refused(&mut image, &start(PlanKind::Drain(NodeId(3))));
    assert!(short.contains("add a broker first"), "{short}");
    done(&mut image, &MetadataCommand::RegisterBroker(broker(4, "")));
    let remove = MetadataCommand::RemoveBroker { broker: NodeId(3) };
    assert!(refused(&mut image, &remove).contains("cluster drain 3"));
    done(&mut image, &start(PlanKind::Drain(NodeId(3))));
    assert_eq!(image.state(NodeId(3)), BrokerState::Draining);
    drive(&mut image);
    assert_eq!(image.state(NodeId(3)), BrokerState::Drained);
    assert!(!loads(&image, 3).contains_key(&NodeId(3)));
    assert!(!loads(&image, 1).contains_key(&NodeId(3)));
    done(&mut image, &remove);
    done(&mut image, &remove);
    assert_eq!(image.incarnation(NodeId(3)), None);
    done(
        &mut image,
        &MetadataCommand::ConfirmExpelled { broker: NodeId(3) },
    );
    assert!(image.broker(NodeId(3)).is_none());
    let back = MetadataCommand::RegisterBroker(broker(3, ""));
    assert!(refused(&mut image, &back).contains("empty"));
    let mut fresh = broker(3, "");
    fresh.incarnation = "fresh".to_owned();
    done(&mut image, &MetadataCommand::RegisterBroker(fresh));
    assert_eq!(image.state(NodeId(3)), BrokerState::Active);
}

#[test]
fn a_replaced_broker_votes_nowhere_until_each_shard_was_filled() {
    let mut image = cluster(&["", "", ""]);
    let fresh = NewBroker {
        incarnation: "fresh".to_owned(),
        ..broker(3, "")
    };
    let register = MetadataCommand::RegisterBroker(fresh.clone());
    assert!(refused(&mut image, &register).contains("cluster replace 3"));
    done(&mut image, &start(PlanKind::Replace(NodeId(3))));
    assert!(image.shards().all(|shard| !shard.is_hosted_by(NodeId(3))));
    // The metadata group still counts it.
    assert!(refused(&mut image, &register).contains("still being taken out"));
    done(
        &mut image,
        &MetadataCommand::ConfirmExpelled { broker: NodeId(3) },
    );
    let old = MetadataCommand::RegisterBroker(broker(3, ""));
    assert!(refused(&mut image, &old).contains("empty"));
    let plan = image.running_plan().expect("runs").clone();
    let first = plan
        .moves
        .iter()
        .find(|step| !step.lost)
        .expect("one")
        .shard;
    // It cannot learn before the shard's group has let go of it, nor before it is there.
    done(&mut image, &step(plan.id, first, MoveStep::Learn));
    assert!(!image.shard(first).expect("known").is_hosted_by(NodeId(3)));
    done(&mut image, &step(plan.id, first, MoveStep::Expelled));
    let early = refused(&mut image, &step(plan.id, first, MoveStep::Learn));
    assert!(early.contains("not come back"), "{early}");
    done(&mut image, &register);
    assert_eq!(image.incarnation(NodeId(3)), Some("fresh"));
    done(&mut image, &step(plan.id, first, MoveStep::Learn));
    let floor = Floor { term: 3, index: 90 };
    done(&mut image, &step(plan.id, first, MoveStep::Floor(floor)));
    let shard = image.shard(first).expect("known").clone();
    assert_eq!(shard.replicas, [NodeId(1), NodeId(2)]);
    assert_eq!(shard.learners[&NodeId(3)], Some(floor));
    drive(&mut image);
    assert!(loads(&image, 3).values().all(|load| *load == 24));
    assert!(leads(&image, 3).values().all(|leads| *leads == 8));
    let anew: Vec<_> = image
        .shards()
        .filter(|s| s.replicas == [NodeId(3)])
        .collect();
    assert!(anew.len() == 2 && anew.iter().all(|s| !s.established));
    assert!(anew.iter().all(|shard| shard.beginning == plan.id));
    assert!(image.shards().filter(|s| s.beginning > 0).count() == 2);
}

#[test]
fn partitions_with_one_replica_are_lost_only_by_permission() {
    let mut image = cluster(&["", "", ""]);
    let topic = MetadataCommand::CreateTopic {
        name: "single".to_owned(),
        partitions: 6,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    done(&mut image, &topic);
    let id = image.topic_by_name("single").expect("known").id();
    let partitions = (0..6).map(PartitionId).collect();
    done(
        &mut image,
        &MetadataCommand::ConfirmPartitions {
            topic: id,
            partitions,
        },
    );
    let why = refused(&mut image, &start(PlanKind::Replace(NodeId(2))));
    assert!(
        why.contains("2 partitions") && why.contains("--accept-loss"),
        "{why}"
    );
    let replace = MetadataCommand::StartPlan {
        kind: PlanKind::Replace(NodeId(2)),
        parallel: 2,
        accept_loss: true,
    };
    done(&mut image, &replace);
    assert!(
        image.topic(id).expect("known").is_ready(),
        "others are served meanwhile"
    );
    done(
        &mut image,
        &MetadataCommand::ConfirmExpelled { broker: NodeId(2) },
    );
    let fresh = NewBroker {
        incarnation: "fresh".to_owned(),
        ..broker(2, "")
    };
    done(&mut image, &MetadataCommand::RegisterBroker(fresh));
    drive(&mut image);
    let made_again: Vec<_> = image.topic(id).expect("known").unconfirmed().collect();
    assert_eq!(made_again.len(), 2);
}

#[test]
fn a_cancelled_plan_takes_back_what_is_under_way() {
    let mut image = cluster(&["", "", ""]);
    done(&mut image, &MetadataCommand::RegisterBroker(broker(4, "")));
    done(&mut image, &start(PlanKind::Drain(NodeId(1))));
    let plan = image.running_plan().expect("runs").clone();
    let first = plan.moves[0].shard;
    done(&mut image, &step(plan.id, first, MoveStep::Learn));
    // Not cancelled: nothing is taken back.
    done(&mut image, &step(plan.id, first, MoveStep::Cancelled));
    assert!(image.shard(first).expect("known").is_hosted_by(NodeId(4)));
    done(&mut image, &MetadataCommand::CancelPlan { plan: plan.id });
    drive(&mut image);
    assert!(!image.shard(first).expect("known").is_hosted_by(NodeId(4)));
    assert_eq!(image.state(NodeId(1)), BrokerState::Active);
    assert!(loads(&image, 3).values().all(|load| *load == 24));
    assert!(refused(&mut image, &step(plan.id + 1, first, MoveStep::Done)).contains("is over"));
}

#[test]
fn a_cluster_that_grew_gets_the_shards_of_a_larger_class() {
    let mut image = cluster(&[""]);
    assert!(!image.has_class(3));
    for id in 2..=3 {
        done(&mut image, &MetadataCommand::RegisterBroker(broker(id, "")));
    }
    done(&mut image, &start(PlanKind::Rebalance));
    assert_eq!(image.shards().filter(|shard| shard.class == 3).count(), 24);
    establish(&mut image);
    drive(&mut image);
    assert!(loads(&image, 3).values().all(|load| *load == 24));
    assert!(leads(&image, 3).values().all(|leads| *leads == 8));
}

#[test]
fn a_bad_replica_is_given_up_and_filled_again() {
    let mut image = cluster(&["", "", ""]);
    let shard = ShardId(1);
    let alone = image.shards().find(|s| s.class == 1).expect("one").clone();
    let only = start(PlanKind::Repair(alone.replicas[0], alone.id));
    assert!(refused(&mut image, &only).contains("no other replica"));
    done(&mut image, &start(PlanKind::Repair(NodeId(2), shard)));
    assert!(!image.shard(shard).expect("known").is_hosted_by(NodeId(2)));
    let nowhere = start(PlanKind::Repair(NodeId(2), shard));
    assert!(refused(&mut image, &nowhere).contains("is running"));
    drive(&mut image);
    assert!(loads(&image, 3).values().all(|load| *load == 24));
    assert!(leads(&image, 3).values().all(|leads| *leads == 8));
}

#[test]
fn no_replica_is_taken_out_of_a_group_that_has_had_no_leader() {
    let mut image = Image::default();
    let brokers = (1..=3).map(|id| broker(id, "")).collect();
    let create = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers,
        shards_per_broker: 1,
    };
    done(&mut image, &create);
    let three: Vec<ShardId> = image
        .shards()
        .filter(|shard| shard.replicas.len() == 3)
        .map(|shard| shard.id)
        .collect();
    let replace = PlanKind::Replace(NodeId(2));
    let repair = PlanKind::Repair(NodeId(2), three[0]);
    for kind in [replace, repair] {
        let refused = image.check_established(kind).expect_err("no leader");
        assert!(refused.message.contains("has had no leader"), "{refused:?}");
    }
    // What begins with one more is refused when it begins.
    let drain = image.check_established(PlanKind::Drain(NodeId(2)));
    drain.expect("waits");
    done(
        &mut image,
        &MetadataCommand::EstablishShard { shard: three[0] },
    );
    image.check_established(repair).expect("may begin");
    image.check_established(replace).expect_err("others");
    for shard in three {
        done(&mut image, &MetadataCommand::EstablishShard { shard });
    }
    // The groups of one replica have had no leader either.
    assert!(image.shards().any(|shard| !shard.established));
    image.check_established(replace).expect("may begin");
}
