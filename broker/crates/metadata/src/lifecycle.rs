//! Commands about brokers and plans applied: who takes part, and where replicas go.

use std::sync::Arc;

use highwater_mutant::mutant;
use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ShardId, TopicId};

use crate::command::{MetadataReply, NewBroker, Refusal};
use crate::image::{Image, ShardInfo};
use crate::placement;
use crate::plan::{BrokerState, Move, MoveState, MoveStep, Plan, PlanKind};
use crate::planner;

pub(crate) fn refused(text: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, text)
}

fn no_leader_yet(shard: ShardId) -> Refusal {
    let text = format!("shard {shard} has had no leader yet; try again when it has one");
    Refusal::new(ErrorCode::ClusterNotReady, text)
}

impl Image {
    /// Where a broker stands.
    #[must_use]
    pub fn state(&self, broker: NodeId) -> BrokerState {
        self.states.get(&broker).copied().unwrap_or_default()
    }
    /// The plan that runs, or the last one that did.
    #[must_use]
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }
    /// The plan that runs.
    #[must_use]
    pub fn running_plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref().filter(|plan| !plan.is_ended())
    }
    /// Whether a data directory was given up for good.
    #[must_use]
    pub fn is_retired(&self, incarnation: &str) -> bool {
        self.retired.contains(incarnation)
    }
    /// The incarnation that may speak for a broker; none while its disk is being replaced.
    #[must_use]
    pub fn incarnation(&self, broker: NodeId) -> Option<&str> {
        let known = self.brokers.get(&broker)?;
        let counts = !matches!(
            self.state(broker),
            BrokerState::Leaving | BrokerState::Replaced | BrokerState::Awaited
        );
        counts.then_some(known.incarnation.as_str())
    }
    /// Whether topics of this many replicas can be made.
    #[must_use]
    pub fn has_class(&self, class: u32) -> bool {
        self.shards.values().any(|shard| shard.class == class)
    }
    /// The plan that a request would start, without starting it.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn preview(&self, kind: PlanKind, parallel: u32, lose: bool) -> Result<Plan, Refusal> {
        let mut image = self.clone();
        image.start_plan(kind, parallel, lose)?;
        let plan = image.plan.take().map(|plan| Plan::clone(&plan));
        plan.ok_or_else(|| refused("there is nothing to do"))
    }

    /// Whether a plan of this kind may be proposed now. One that takes a replica out of a group at once is not
    /// begun before the group has had a leader: whoever writes its first membership would write another one
    /// than what may be there already.
    ///
    /// A shard that is established stays so, and new ones come with a rebalance alone; so what is asked here before
    /// a plan is proposed holds when it is begun, unless another one was begun and has ended in between.
    ///
    /// # Errors
    /// Names the first shard that has had no leader.
    pub fn check_established(&self, kind: PlanKind) -> Result<(), Refusal> {
        let takes_out = |shard: &&ShardInfo| match kind {
            PlanKind::Replace(broker) => shard.replicas.contains(&broker),
            PlanKind::Repair(_, id) => shard.id == id,
            _ => false,
        };
        // Nobody else speaks for a group of one.
        let open = |shard: &&ShardInfo| !shard.established && shard.replicas.len() > 1;
        match self.shards().filter(open).find(takes_out) {
            None => Ok(()),
            Some(shard) => Err(no_leader_yet(shard.id)),
        }
    }

    pub(crate) fn register(&mut self, broker: &NewBroker) -> Result<MetadataReply, Refusal> {
        if broker.id.0 == 0 {
            return Err(refused("broker ids begin at 1"));
        }
        let id = broker.id;
        if self.retired.contains(&broker.incarnation) {
            return Err(refused(format!(
                "broker {id} comes with a data directory that was replaced or removed; give it an \
                 empty one"
            )));
        }
        match self.state(id) {
            BrokerState::Leaving | BrokerState::Replaced => {
                let text = format!("broker {id} is still being taken out of the cluster");
                return Err(Refusal::new(ErrorCode::ClusterNotReady, text));
            }
            BrokerState::Awaited => {
                self.states.remove(&id);
            }
            BrokerState::Active | BrokerState::Draining | BrokerState::Drained => {
                if let Some(known) = self.brokers.get(&id)
                    && mutant!(WipedBrokerVotes => false; else known.incarnation != broker.incarnation)
                {
                    return Err(refused(format!(
                        "broker {id} is known with another data directory (incarnation {}, not \
                         {}); bring the old directory back, or give it up with `highwater cluster \
                         replace {id}`",
                        known.incarnation, broker.incarnation
                    )));
                }
            }
        }
        self.brokers.insert(id, broker.clone());
        Ok(MetadataReply::Done)
    }

    pub(crate) fn start_plan(
        &mut self,
        kind: PlanKind,
        parallel: u32,
        lose: bool,
    ) -> Result<MetadataReply, Refusal> {
        if let Some(plan) = self.running_plan() {
            return Err(refused(format!(
                "plan {} is running; wait for it (`highwater cluster plan show`) or cancel it \
                 (`highwater cluster plan cancel`)",
                plan.id
            )));
        }
        let (moves, partitions) = match kind {
            PlanKind::Rebalance => (self.rebalance()?, Vec::new()),
            PlanKind::Drain(broker) => (self.drain(broker)?, Vec::new()),
            PlanKind::Replace(broker) => (self.replace(broker, lose)?, Vec::new()),
            PlanKind::Repair(broker, shard) => (vec![self.repair(broker, shard)?], Vec::new()),
            PlanKind::MovePartition(topic, partition, to) => {
                (Vec::new(), self.move_partition(topic, partition, to)?)
            }
            PlanKind::Replicate(topic, factor) => (Vec::new(), self.replicate(topic, factor)?),
        };
        let id = self.next_plan.max(1);
        self.next_plan = id + 1;
        self.plan = Some(Arc::new(Plan {
            id,
            kind,
            moves,
            partitions,
            parallel: parallel.max(1),
            cancelled: false,
        }));
        self.end_plan();
        Ok(MetadataReply::PlanStarted { plan: id })
    }

    fn rebalance(&mut self) -> Result<Vec<Move>, Refusal> {
        let takes = self
            .brokers
            .keys()
            .filter(|id| self.state(**id) == BrokerState::Active)
            .count();
        placement::add_missing_classes(self, takes);
        planner::moves(self, None)
    }
    fn known(&self, broker: NodeId) -> Result<&NewBroker, Refusal> {
        let known = self.brokers.get(&broker);
        known.ok_or_else(|| {
            refused(format!(
                "there is no broker {broker}; `highwater cluster members` shows all"
            ))
        })
    }
    fn drain(&mut self, broker: NodeId) -> Result<Vec<Move>, Refusal> {
        self.known(broker)?;
        match self.state(broker) {
            BrokerState::Active | BrokerState::Draining | BrokerState::Drained => {}
            BrokerState::Leaving => {
                return Err(refused(format!("broker {broker} is being removed")));
            }
            BrokerState::Replaced | BrokerState::Awaited => {
                return Err(refused(format!(
                    "broker {broker} is being replaced and has nothing to give away; `highwater \
                     cluster rebalance` fills its place elsewhere once it is removed"
                )));
            }
        }
        let moves = planner::moves(self, Some(broker))?;
        self.states.insert(broker, BrokerState::Draining);
        Ok(moves)
    }

    fn replace(&mut self, broker: NodeId, lose: bool) -> Result<Vec<Move>, Refusal> {
        let incarnation = self.known(broker)?.incarnation.clone();
        match self.state(broker) {
            BrokerState::Leaving => {
                return Err(refused(format!("broker {broker} is being removed")));
            }
            BrokerState::Replaced | BrokerState::Awaited => {
                return Err(refused(format!(
                    "broker {broker} is given up already; start it with an empty data directory"
                )));
            }
            BrokerState::Active | BrokerState::Draining | BrokerState::Drained => {}
        }
        let mine = |replicas: &[NodeId]| replicas.contains(&broker);
        let only_here = self.shards.values().filter(|s| s.replicas == [broker]);
        let lost: u32 = only_here.map(|shard| shard.partitions).sum();
        if lost > 0 && !lose {
            return Err(refused(format!(
                "{lost} partitions of topics with one replica are on broker {broker} alone and \
                 would be lost, with all their records; if the disk is gone for good, add \
                 --accept-loss"
            )));
        }
        if !self.brokers.keys().any(|other| *other != broker) {
            return Err(refused(
                "a cluster of one broker has nobody to fill it again",
            ));
        }
        let mut moves = Vec::new();
        for shard in self.shards.values_mut().filter(|s| mine(&s.replicas)) {
            shard.replicas.retain(|node| *node != broker);
            let lost = shard.replicas.is_empty();
            if shard.preferred_leader == Some(broker) {
                shard.preferred_leader = shard.replicas.first().copied();
            }
            moves.push(Move {
                shard: shard.id,
                add: broker,
                remove: Some(broker),
                lost,
                state: if lost {
                    MoveState::Waiting
                } else {
                    MoveState::Expelling
                },
            });
        }
        self.retired.insert(incarnation);
        self.states.insert(broker, BrokerState::Replaced);
        Ok(moves)
    }

    /// The broker stops hosting the shard at once, and does not vote for it before it is whole.
    fn repair(&mut self, broker: NodeId, id: ShardId) -> Result<Move, Refusal> {
        self.known(broker)?;
        if self.incarnation(broker).is_none() {
            return Err(refused(format!(
                "broker {broker} is being replaced or removed: there is nobody to be filled; \
                 `highwater cluster health` says what is missing"
            )));
        }
        let shard = self.shards.get_mut(&id);
        let shard = shard.filter(|shard| shard.replicas.contains(&broker));
        let Some(shard) = shard else {
            return Err(refused(format!(
                "broker {broker} has no replica of shard {id}; `highwater cluster status --shards` \
                 shows where it is"
            )));
        };
        if shard.replicas.len() == 1 {
            return Err(refused(format!(
                "shard {id} has no other replica to fill this one from; a topic gets more with \
                 `highwater topic alter --replication-factor`"
            )));
        }
        shard.replicas.retain(|node| *node != broker);
        if shard.preferred_leader == Some(broker) {
            shard.preferred_leader = shard.replicas.first().copied();
        }
        Ok(Move {
            shard: id,
            add: broker,
            remove: Some(broker),
            lost: false,
            state: MoveState::Expelling,
        })
    }

    pub(crate) fn cancel_plan(&mut self, id: u64) -> Result<MetadataReply, Refusal> {
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.id == id) else {
            return Err(refused(format!("there is no plan {id}")));
        };
        if plan.is_ended() {
            return Ok(MetadataReply::Done);
        }
        let plan = Arc::make_mut(plan);
        plan.cancelled = true;
        for step in &mut plan.moves {
            if step.state == MoveState::Waiting {
                step.state = MoveState::Cancelled;
            }
        }
        // Nothing has to be taken back before: the partition is where it was.
        for step in &mut plan.partitions {
            if !step.state.is_final() {
                step.state = MoveState::Cancelled;
            }
        }
        self.end_plan();
        Ok(MetadataReply::Done)
    }

    /// Writes down that a step was done. A step that was written down before changes nothing.
    pub(crate) fn advance(
        &mut self,
        id: u64,
        shard: ShardId,
        done: MoveStep,
    ) -> Result<MetadataReply, Refusal> {
        let Some(plan) = self.plan.clone().filter(|plan| plan.id == id) else {
            return Err(refused(format!("plan {id} is over")));
        };
        let mut plan = plan;
        let cancelled = plan.cancelled;
        let open = |step: &&mut Move| step.shard == shard && !step.state.is_final();
        let Some(step) = Arc::make_mut(&mut plan).moves.iter_mut().find(open) else {
            return Ok(MetadataReply::Done);
        };
        match (step.state, done) {
            (MoveState::Expelling, MoveStep::Expelled) => {
                step.state = if cancelled {
                    MoveState::Cancelled
                } else {
                    MoveState::Waiting
                };
            }
            (MoveState::Waiting, MoveStep::Learn) => self.begin(id, step)?,
            (MoveState::Learning, MoveStep::Floor(floor)) => {
                if let Some(shard) = self.shards.get_mut(&shard) {
                    shard.learners.insert(step.add, Some(floor));
                }
            }
            (MoveState::Learning, MoveStep::Done) => self.complete(step),
            (MoveState::Learning, MoveStep::Cancelled) if cancelled => {
                if let Some(shard) = self.shards.get_mut(&shard) {
                    shard.learners.remove(&step.add);
                }
                step.state = MoveState::Cancelled;
            }
            _ => return Ok(MetadataReply::Done),
        }
        self.plan = Some(plan);
        self.end_plan();
        Ok(MetadataReply::Done)
    }

    fn begin(&mut self, plan: u64, step: &mut Move) -> Result<(), Refusal> {
        if self.incarnation(step.add).is_none() {
            let text = format!("broker {} has not come back yet", step.add);
            return Err(Refusal::new(ErrorCode::ClusterNotReady, text));
        }
        if step.lost {
            self.begin_anew(plan, step.shard, step.add);
            step.state = MoveState::Done;
            return Ok(());
        }
        if let Some(shard) = self.shards.get_mut(&step.shard) {
            if !shard.established {
                // Its first members are still being written.
                return Err(no_leader_yet(step.shard));
            }
            shard.learners.insert(step.add, None);
        }
        step.state = MoveState::Learning;
        Ok(())
    }

    /// A shard whose only replica is gone becomes a new, empty one under the same number: its one
    /// voter can never come back, so nobody else speaks for the old group.
    fn begin_anew(&mut self, plan: u64, id: ShardId, node: NodeId) {
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.replicas = vec![node];
            shard.preferred_leader = Some(node);
            shard.established = false;
            shard.beginning = plan;
        }
        let here = self.topics().filter(|topic| topic.shards.contains(&id));
        let here: Vec<TopicId> = here.map(|topic| topic.id).collect();
        for topic in here {
            let Some(topic) = self.topics.get_mut(&topic).map(Arc::make_mut) else {
                continue;
            };
            let partitions = (0..).zip(&topic.shards);
            let again = partitions.filter(|(_, shard)| **shard == id);
            let again: Vec<_> = again.map(|(number, _)| PartitionId(number)).collect();
            // They are made there, and not moved there any more.
            topic.arrivals.retain(|number, _| !again.contains(number));
            topic.unconfirmed.extend(again);
        }
    }

    fn complete(&mut self, step: &mut Move) {
        if let Some(shard) = self.shards.get_mut(&step.shard) {
            shard.learners.remove(&step.add);
            shard.replicas.retain(|node| Some(*node) != step.remove);
            shard.replicas.push(step.add);
            shard.replicas.sort_unstable();
            shard.replicas.dedup();
            if shard.preferred_leader.is_none() || shard.preferred_leader == step.remove {
                shard.preferred_leader = Some(step.add);
            }
        }
        step.state = MoveState::Done;
    }

    /// What follows when the last move has ended.
    pub(crate) fn end_plan(&mut self) {
        let Some(plan) = self.plan.clone().filter(|plan| plan.is_ended()) else {
            return;
        };
        if let PlanKind::Drain(broker) = plan.kind
            && self.state(broker) == BrokerState::Draining
        {
            if plan.cancelled {
                self.states.remove(&broker);
            } else {
                self.states.insert(broker, BrokerState::Drained);
            }
        }
        if let PlanKind::Replicate(topic, factor) = plan.kind {
            self.replicated(topic, factor, plan.cancelled);
        }
        planner::spread_leaders(self);
    }

    pub(crate) fn remove_broker(&mut self, broker: NodeId) -> Result<MetadataReply, Refusal> {
        if self.state(broker) == BrokerState::Leaving {
            return Ok(MetadataReply::Done);
        }
        let incarnation = self.known(broker)?.incarnation.clone();
        let holds = |shard: &crate::image::ShardInfo| {
            shard.replicas.contains(&broker) || shard.learners.contains_key(&broker)
        };
        let held = self.shards.values().filter(|shard| holds(shard)).count();
        if held > 0 {
            return Err(refused(format!(
                "broker {broker} holds replicas of {held} shards; run `highwater cluster drain \
                 {broker}` first"
            )));
        }
        let awaited = |plan: &Arc<Plan>| {
            let mut open = plan.moves.iter().filter(|step| !step.state.is_final());
            open.any(|step| step.add == broker)
        };
        if self.running_plan().is_some_and(awaited) {
            return Err(refused(format!(
                "the running plan gives broker {broker} replicas; wait for it, or cancel it with \
                 `highwater cluster plan cancel`"
            )));
        }
        if self.brokers.len() == 1 {
            return Err(refused("the last broker of a cluster cannot be removed"));
        }
        self.retired.insert(incarnation);
        self.states.insert(broker, BrokerState::Leaving);
        Ok(MetadataReply::Done)
    }

    /// The metadata group no longer counts a broker that was removed or replaced.
    pub(crate) fn expelled(&mut self, broker: NodeId) -> MetadataReply {
        match self.state(broker) {
            BrokerState::Leaving => {
                self.states.remove(&broker);
                self.brokers.remove(&broker);
            }
            BrokerState::Replaced => {
                self.states.insert(broker, BrokerState::Awaited);
            }
            _ => {}
        }
        MetadataReply::Done
    }
}
