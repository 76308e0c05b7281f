//! Which stopped replicas are filled again by themselves, and which never are.

use highwater_metadata::{MetadataCommand, PlanKind};

use super::*;
use crate::control::plans::tests::image;

const AFTER: Duration = Duration::from_secs(60);

/// Three brokers whose replicas are all whole, but for those that a test says are not.
struct World {
    image: Image,
    alive: BTreeSet<NodeId>,
    stopped: BTreeSet<(NodeId, ShardId)>,
    damaged: BTreeSet<(NodeId, ShardId)>,
}

impl World {
    fn new() -> Self {
        Self {
            image: image(3),
            alive: (1..=3).map(NodeId).collect(),
            stopped: BTreeSet::new(),
            damaged: BTreeSet::new(),
        }
    }
    fn shard(&self, replicas: usize) -> ShardId {
        let mut shards = self.image.shards();
        let found = shards.find(|shard| shard.replicas.len() == replicas);
        found.expect("a shard of this class").id
    }
    fn next(&self, repairs: &mut Repairs, now: Instant) -> Option<(NodeId, ShardId)> {
        let report = |node: NodeId, shard: ShardId| {
            let of = self.image.shard(shard)?;
            Some(ReplicaReport {
                voters: of.replicas.clone(),
                recovered: true,
                stopped: self.stopped.contains(&(node, shard)),
                damage: self
                    .damaged
                    .contains(&(node, shard))
                    .then(|| "rot".to_owned()),
                ..ReplicaReport::default()
            })
        };
        let known = Known {
            image: &self.image,
            alive: &self.alive,
            report: &report,
        };
        repairs.next(&known, now, AFTER)
    }
}

#[test]
fn a_replica_that_stands_still_long_enough_is_filled_again_once() {
    let (mut world, mut repairs, start) = (World::new(), Repairs::default(), Instant::now());
    let bad = (NodeId(2), world.shard(3));
    assert_eq!(world.next(&mut repairs, start), None);
    world.stopped.insert(bad);
    assert_eq!(world.next(&mut repairs, start), None);
    assert_eq!(world.next(&mut repairs, start + AFTER / 2), None);
    // It ran again in between: the time counts anew.
    world.stopped.clear();
    assert_eq!(world.next(&mut repairs, start + AFTER / 2), None);
    world.stopped.insert(bad);
    let again = start + AFTER / 2;
    assert_eq!(world.next(&mut repairs, again), None);
    assert_eq!(world.next(&mut repairs, again + AFTER / 2), None);
    assert_eq!(world.next(&mut repairs, again + AFTER), Some(bad));
    // Not twice in a row, whatever became of the first.
    assert_eq!(world.next(&mut repairs, again + AFTER), None);
    assert_eq!(world.next(&mut repairs, again + AFTER * 2), Some(bad));
}

#[test]
fn nothing_is_done_that_would_take_the_last_good_copy_or_the_quorum() {
    let start = Instant::now();
    let shard = World::new().shard(3);
    let bad = (NodeId(2), shard);
    let next = |world: &World| {
        let mut repairs = Repairs::default();
        assert_eq!(world.next(&mut repairs, start), None);
        world.next(&mut repairs, start + AFTER)
    };
    let stopped = || {
        let mut world = World::new();
        world.stopped.insert(bad);
        world
    };
    assert_eq!(next(&stopped()), Some(bad));
    for other in [NodeId(1), NodeId(3)] {
        let mut world = stopped();
        world.alive.remove(&other);
        assert_eq!(next(&world), None, "one of the others is away");
        let mut world = stopped();
        world.damaged.insert((other, shard));
        assert_eq!(next(&world), None, "one of the others is bad");
        let mut world = stopped();
        world.stopped.insert((other, shard));
        assert_eq!(next(&world), None, "two have stopped");
    }
    // It is the only one.
    let mut world = World::new();
    let alone = world.shard(1);
    let holder = world.image.shard(alone).expect("known").replicas[0];
    world.stopped.insert((holder, alone));
    assert_eq!(next(&world), None);
}

#[test]
fn one_plan_at_a_time() {
    let (mut world, mut repairs, start) = (World::new(), Repairs::default(), Instant::now());
    let shard = world.shard(3);
    world.stopped.insert((NodeId(2), shard));
    world.stopped.insert((NodeId(3), ShardId(shard.0 + 1)));
    assert_eq!(world.next(&mut repairs, start), None);
    let first = world.next(&mut repairs, start + AFTER).expect("one");
    let command = MetadataCommand::StartPlan {
        kind: PlanKind::Repair(first.0, first.1),
        parallel: 1,
        accept_loss: false,
    };
    world.image.apply(&command);
    assert!(world.image.running_plan().is_some());
    assert_eq!(world.next(&mut repairs, start + AFTER * 3), None);
}
