//! Who votes in the metadata group, and who has to know of a plan.

use std::collections::BTreeSet;

use highwater_metadata::{Image, MetadataCommand, NewBroker, PlanKind};
use highwater_proto::NodeId;

use super::{metadata_goal, unaware};

/// So many brokers, of which three made the cluster; every shard has had a leader.
pub(in crate::control) fn image(brokers: u32) -> Image {
    let mut image = Image::default();
    let broker = |id: u32| NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}:9094"),
        incarnation: format!("inc-{id}"),
        rack: String::new(),
        version: String::new(),
    };
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: (1..=brokers.min(3)).map(broker).collect(),
        shards_per_broker: 0,
    });
    let shards: Vec<_> = image.shards().map(|shard| shard.id).collect();
    for shard in shards {
        image.apply(&MetadataCommand::EstablishShard { shard });
    }
    for id in 4..=brokers {
        image.apply(&MetadataCommand::RegisterBroker(broker(id)));
    }
    image
}

fn set(ids: &[u32]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn voters(image: &Image, now: &[u32], alive: &[u32]) -> BTreeSet<NodeId> {
    let goal = metadata_goal(image, &set(now), &set(alive)).expect("a goal");
    assert!(goal.voters.is_disjoint(&goal.learners));
    goal.voters
}

#[test]
fn newcomers_receive_and_vote_when_there_are_five() {
    let four = image(4);
    assert_eq!(voters(&four, &[1, 2, 3], &[1, 2, 3, 4]), set(&[1, 2, 3]));
    let goal = metadata_goal(&four, &set(&[1, 2, 3]), &set(&[1, 2, 3, 4]));
    assert_eq!(goal.expect("a goal").learners, set(&[4]));
    let five = image(5);
    assert_eq!(
        voters(&five, &[1, 2, 3], &[1, 2, 3, 4, 5]),
        set(&[1, 2, 3, 4, 5])
    );
    // Who does not answer is not made a voter, and stays one.
    assert_eq!(voters(&five, &[1, 2, 3], &[1, 2, 4]), set(&[1, 2, 3, 4]));
}

#[test]
fn who_leaves_is_followed_by_another() {
    let mut four = image(4);
    let drain = MetadataCommand::StartPlan {
        kind: PlanKind::Drain(NodeId(2)),
        parallel: 1,
        accept_loss: false,
    };
    four.apply(&drain);
    assert_eq!(voters(&four, &[1, 2, 3], &[1, 2, 3, 4]), set(&[1, 3, 4]));
    // As long as nobody can follow, it stays.
    assert_eq!(voters(&four, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]));

    let mut three = image(3);
    let replace = MetadataCommand::StartPlan {
        kind: PlanKind::Replace(NodeId(3)),
        parallel: 1,
        accept_loss: false,
    };
    three.apply(&replace);
    let goal = metadata_goal(&three, &set(&[1, 2, 3]), &set(&[1, 2, 3])).expect("a goal");
    assert_eq!((goal.voters, goal.learners), (set(&[1, 2]), set(&[])));
}

#[test]
fn replicas_have_to_know_whose_disk_is_given_up() {
    let waits = |known: &[u32], unknown: &[u32], alive: &[u32], replaces| {
        unaware(&set(known), &set(unknown), &set(alive), replaces).map(|id| id.0)
    };
    // Both others of three, whether they answer or not.
    assert_eq!(waits(&[1, 2], &[], &[1, 2], true), None);
    assert_eq!(waits(&[1], &[2], &[1, 2], true), Some(2));
    assert_eq!(waits(&[1], &[2], &[1], true), Some(2));
    // Of five, one may be away, or lost as well.
    assert_eq!(waits(&[1, 2, 3], &[4], &[1, 2, 3], true), None);
    assert_eq!(waits(&[1, 2, 3], &[4], &[1, 2, 3, 4], true), Some(4));
    assert_eq!(waits(&[1, 2], &[3, 4], &[1, 2], true), Some(3));
    // Where nobody's disk is given up, those that are away are not waited for.
    assert_eq!(waits(&[1], &[2], &[1], false), None);
    assert_eq!(waits(&[1], &[2], &[1, 2], false), Some(2));
    // A shard of one replica, and of two.
    assert_eq!(waits(&[], &[], &[], true), None);
    assert_eq!(waits(&[1], &[], &[1], true), None);
}
