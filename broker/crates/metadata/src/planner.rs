//! Where replicas should be: pure functions from an image to moves. Replicas are spread evenly over
//! the brokers, and a shard's over racks; no more is moved than that takes.

use std::collections::BTreeMap;

use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, ShardId};

use crate::command::Refusal;
use crate::image::{Image, ShardInfo};
use crate::plan::{BrokerState, Move, MoveState};

/// Replicas as they are wanted, of the shards of one class.
struct Draft<'a> {
    image: &'a Image,
    class: u32,
    replicas: BTreeMap<ShardId, Vec<NodeId>>,
    /// Replicas of each broker that may take some.
    load: BTreeMap<NodeId, usize>,
}

/// The moves that spread all replicas evenly. With `leaving`, none stays there.
pub(crate) fn moves(image: &Image, leaving: Option<NodeId>) -> Result<Vec<Move>, Refusal> {
    let mut classes: Vec<u32> = image.shards.values().map(|shard| shard.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut moves = Vec::new();
    for class in classes {
        let mut draft = Draft::of(image, class, leaving);
        draft.fill(leaving)?;
        if leaving.is_none() {
            draft.even_out();
        }
        moves.extend(draft.moves());
    }
    moves.sort_by_key(|step| step.shard);
    Ok(moves)
}

impl<'a> Draft<'a> {
    fn of(image: &'a Image, class: u32, leaving: Option<NodeId>) -> Self {
        let takes = |id: &NodeId| Some(*id) != leaving && image.state(*id) == BrokerState::Active;
        let shards = image.shards.values().filter(|shard| shard.class == class);
        let replicas: BTreeMap<ShardId, Vec<NodeId>> =
            shards.map(|s| (s.id, s.replicas.clone())).collect();
        let mut load: BTreeMap<NodeId, usize> = image
            .brokers
            .keys()
            .filter(|id| takes(id))
            .map(|id| (*id, 0))
            .collect();
        for node in replicas.values().flatten() {
            if let Some(load) = load.get_mut(node) {
                *load += 1;
            }
        }
        Self {
            image,
            class,
            replicas,
            load,
        }
    }

    fn rack(&self, node: NodeId) -> &str {
        self.image
            .brokers
            .get(&node)
            .map_or("", |broker| broker.rack.as_str())
    }
    /// How many of `others` share the rack of `node`.
    fn crowd(&self, node: NodeId, others: &[NodeId]) -> usize {
        let rack = self.rack(node);
        let same = |other: &&NodeId| **other != node && self.rack(**other) == rack;
        others.iter().filter(same).count()
    }

    /// Gives each shard as many replicas as its class, none of them at `leaving`.
    fn fill(&mut self, leaving: Option<NodeId>) -> Result<(), Refusal> {
        let shards: Vec<ShardId> = self.replicas.keys().copied().collect();
        for shard in shards {
            let mut replicas = self.replicas.get(&shard).cloned().unwrap_or_default();
            replicas.retain(|node| Some(*node) != leaving);
            while replicas.len() < self.class as usize {
                let free = self.load.iter().filter(|(id, _)| !replicas.contains(id));
                let best =
                    free.min_by_key(|(id, load)| (self.crowd(**id, &replicas), **load, **id));
                let Some(best) = best.map(|(id, _)| *id) else {
                    let text = format!(
                        "shard {shard} needs {} brokers and only {} may hold replicas; add a \
                         broker first",
                        self.class,
                        self.load.len()
                    );
                    return Err(Refusal::new(ErrorCode::NotEnoughBrokers, text));
                };
                replicas.push(best);
                *self.load.entry(best).or_default() += 1;
            }
            self.replicas.insert(shard, replicas);
        }
        Ok(())
    }

    /// Moves single replicas from the fullest to the emptiest brokers, as long as that helps and
    /// crowds no rack more than before.
    fn even_out(&mut self) {
        while let Some((shard, from, to)) = self.best_move() {
            if let Some(replicas) = self.replicas.get_mut(&shard) {
                replicas.retain(|node| *node != from);
                replicas.push(to);
            }
            *self.load.entry(from).or_default() -= 1;
            *self.load.entry(to).or_default() += 1;
        }
    }
    fn best_move(&self) -> Option<(ShardId, NodeId, NodeId)> {
        let mut pairs: Vec<(usize, NodeId, NodeId)> = Vec::new();
        for (from, most) in &self.load {
            for (to, least) in &self.load {
                if *most >= least + 2 {
                    pairs.push((most - least, *from, *to));
                }
            }
        }
        pairs.sort_by_key(|(gap, from, to)| (std::cmp::Reverse(*gap), *from, *to));
        pairs.into_iter().find_map(|(_, from, to)| {
            let movable = self.replicas.iter().filter_map(|(shard, replicas)| {
                if !replicas.contains(&from) || replicas.contains(&to) {
                    return None;
                }
                let rest: Vec<NodeId> = replicas.iter().copied().filter(|n| *n != from).collect();
                let (before, after) = (self.crowd(from, &rest), self.crowd(to, &rest));
                (after <= before).then(|| (before - after, *shard))
            });
            let best = movable.min_by_key(|(gain, shard)| (std::cmp::Reverse(*gain), *shard));
            best.map(|(_, shard)| (shard, from, to))
        })
    }

    fn moves(self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (shard, wanted) in &self.replicas {
            let Some(now) = self.image.shards.get(shard).map(|s| &s.replicas) else {
                continue;
            };
            let mut gone = now.iter().filter(|node| !wanted.contains(node));
            for add in wanted.iter().filter(|node| !now.contains(node)) {
                moves.push(Move {
                    shard: *shard,
                    add: *add,
                    remove: gone.next().copied(),
                    lost: false,
                    state: MoveState::Waiting,
                });
            }
        }
        moves
    }
}

/// Sets who should lead each shard, so that every broker leads about as many of a class as any
/// other; no more changes than that takes.
pub(crate) fn spread_leaders(image: &mut Image) {
    let takes: Vec<NodeId> = image
        .brokers
        .keys()
        .copied()
        .filter(|id| image.state(*id) == BrokerState::Active)
        .collect();
    let mut leads: BTreeMap<(u32, NodeId), usize> = BTreeMap::new();
    for shard in image.shards.values_mut() {
        shard.preferred_leader = shard
            .preferred_leader
            .filter(|node| shard.replicas.contains(node) && takes.contains(node));
        if let Some(node) = shard.preferred_leader {
            *leads.entry((shard.class, node)).or_default() += 1;
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for shard in image.shards.values_mut() {
            changed |= prefer_less_busy(shard, &takes, &mut leads);
        }
    }
}

fn prefer_less_busy(
    shard: &mut ShardInfo,
    takes: &[NodeId],
    leads: &mut BTreeMap<(u32, NodeId), usize>,
) -> bool {
    let class = shard.class;
    let busy = |node: NodeId, leads: &BTreeMap<(u32, NodeId), usize>| {
        leads.get(&(class, node)).copied().unwrap_or(0)
    };
    let may = shard.replicas.iter().copied().filter(|n| takes.contains(n));
    let Some(best) = may.min_by_key(|node| (busy(*node, leads), *node)) else {
        return false;
    };
    let better = match shard.preferred_leader {
        None => true,
        Some(now) => busy(best, leads) + 1 < busy(now, leads),
    };
    if better {
        if let Some(now) = shard.preferred_leader
            && let Some(count) = leads.get_mut(&(class, now))
        {
            *count -= 1;
        }
        *leads.entry((class, best)).or_default() += 1;
        shard.preferred_leader = Some(best);
    }
    better
}
