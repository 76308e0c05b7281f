//! The producer's machine against a model of cluster and network: whatever is lost, late,
//! rejected or moved, an acknowledged record is stored once at its offset, a rejected one never,
//! and the order of each partition is the order of sending.

use std::collections::{BTreeMap, VecDeque};

use highwater_proto::{Offset, PartitionId, TopicId};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorCode;

const PARTITIONS: u32 = 2;
const NODES: u32 = 3;

impl Item for u64 {
    type Wire = Vec<u64>;
    fn wire(items: &mut [Self]) -> Vec<u64> {
        items.to_vec()
    }
}

/// Epoch, next sequence, first sequence and base offset of the last five batches.
type Known = (u16, u32, VecDeque<(u32, u64)>);

#[derive(Default)]
struct ServerPartition {
    leader: u32,
    stored: Vec<u64>,
    producers: BTreeMap<u64, Known>,
}

type Sent = (u32, u64, Outgoing<Vec<u64>>);

impl ServerPartition {
    fn append(&mut self, sent: &Outgoing<Vec<u64>>) -> Result<(u64, bool), ErrorCode> {
        let Identity { id, epoch } = sent.identity;
        if !self.producers.contains_key(&id) && sent.sequence != 0 {
            return Err(ErrorCode::UnknownProducer);
        }
        let state = self.producers.entry(id).or_default();
        if epoch < state.0 {
            return Err(ErrorCode::ProducerFenced);
        }
        if epoch > state.0 {
            *state = (epoch, 0, VecDeque::new());
        }
        if let Some(&(_, base)) = state.2.iter().find(|(first, _)| *first == sent.sequence) {
            return Ok((base, true));
        }
        if sent.sequence < state.1 {
            return Err(ErrorCode::DuplicateSequence);
        }
        if sent.sequence > state.1 {
            return Err(ErrorCode::OutOfOrderSequence);
        }
        let base = self.stored.len() as u64;
        self.stored.extend(&sent.wire);
        state.1 += sent.wire.len() as u32;
        state.2.push_back((sent.sequence, base));
        if state.2.len() > 5 {
            state.2.pop_front();
        }
        Ok((base, false))
    }
}

struct World {
    machine: Machine<u64>,
    now: Duration,
    partitions: Vec<ServerPartition>,
    /// Requests on their way, in order within a session; also those of lost sessions.
    wire: VecDeque<Sent>,
    answers: VecDeque<(u64, AttemptId, Verdict)>,
    sessions: BTreeMap<u32, u64>,
    next_session: u64,
    next_value: u64,
    next_producer: u64,
    outcomes: BTreeMap<u64, (TopicPartition, Outcome, u64)>,
    of: BTreeMap<u64, TopicPartition>,
}

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(1), PartitionId(partition))
}

impl World {
    fn new() -> Self {
        let rules = Rules {
            linger: Duration::from_millis(2),
            batch_bytes: 200,
            delivery_timeout: Duration::from_millis(500),
            retry_first: Duration::from_millis(5),
            retry_most: Duration::from_millis(40),
            seed: 3,
        };
        let lead = |p: u32| ServerPartition {
            leader: 1 + p % NODES,
            ..Default::default()
        };
        Self {
            machine: Machine::new(rules),
            now: Duration::ZERO,
            partitions: (0..PARTITIONS).map(lead).collect(),
            wire: VecDeque::new(),
            answers: VecDeque::new(),
            sessions: (1..=NODES).map(|node| (node, u64::from(node))).collect(),
            next_session: 100,
            next_value: 0,
            next_producer: 0,
            outcomes: BTreeMap::new(),
            of: BTreeMap::new(),
        }
    }

    /// Goes through `steps`, then heals and checks.
    fn after(steps: &[(u8, u32)]) -> Self {
        let mut world = Self::new();
        world.tell_leaders();
        world.grant();
        for (action, choice) in steps {
            world.step(*action, *choice);
        }
        world.settle();
        world.check();
        world
    }

    fn step(&mut self, action: u8, choice: u32) {
        let partition = choice % PARTITIONS;
        let node = 1 + choice % NODES;
        match action {
            0..=5 => self.append(partition),
            6..=10 => self.take(node),
            11..=15 => self.serve(choice as usize, None),
            16..=20 => self.deliver(),
            21 => self.lose(node),
            22 => self.partitions[partition as usize].leader = node,
            23 => self.tell_leaders(),
            24..=26 => self.pass(Duration::from_millis(u64::from(choice % 20))),
            27 => self.serve(choice as usize, Some((ErrorCode::Overloaded, true))),
            28 => self.serve(choice as usize, Some((ErrorCode::TimedOut, false))),
            29 => self.serve(choice as usize, Some((ErrorCode::CorruptBatch, true))),
            30 => self.pass(Duration::from_millis(u64::from(choice % 400))),
            _ => self.grant(),
        }
        self.collect();
    }

    fn append(&mut self, partition: u32) {
        let value = self.next_value;
        self.next_value += 1;
        self.of.insert(value, tp(partition));
        let at = (self.now, self.now);
        self.machine.append(tp(partition), value, (40, 200), at);
    }
    fn take(&mut self, node: u32) {
        let session = self.sessions[&node];
        if let Some(outgoing) = self.machine.take(NodeId(node), session, self.now) {
            self.wire.push_back((node, session, outgoing));
        }
    }
    /// A broker handles the oldest request of some session.
    fn serve(&mut self, choice: usize, fault: Option<(ErrorCode, bool)>) {
        if self.wire.is_empty() {
            return;
        }
        let session = self.wire[choice % self.wire.len()].1;
        let at = self.wire.iter().position(|sent| sent.1 == session).unwrap();
        let (node, session, outgoing) = self.wire.remove(at).unwrap();
        let partition = &mut self.partitions[outgoing.attempt.tp.partition.0 as usize];
        let answer = match fault {
            Some((code, true)) => Err((code, true)),
            _ if partition.leader != node => Err((ErrorCode::NotLeader, true)),
            _ => partition.append(&outgoing).map_err(|code| (code, true)),
        };
        let answer = match fault {
            // The verdict is lost on the way: the broker cannot say.
            Some((code, false)) => Err((code, false)),
            _ => answer,
        };
        let verdict = match answer {
            Ok((base, duplicate)) => {
                let base_offset = Offset(base);
                Verdict::Acknowledged {
                    base_offset,
                    append_time: None,
                    duplicate,
                }
            }
            Err((code, certain)) => {
                let cause = Cause::Broker {
                    code,
                    message: String::new(),
                };
                Verdict::Refused(Refusal::of_code(code, certain, cause))
            }
        };
        self.answers.push_back((session, outgoing.attempt, verdict));
    }
    /// An answer arrives, unless its session is gone.
    fn deliver(&mut self) {
        if let Some((session, of, verdict)) = self.answers.pop_front()
            && self.sessions.values().any(|live| *live == session)
        {
            self.machine.answered(of, verdict, self.now);
        }
    }
    /// The stream breaks; what is on the wire may be handled all the same, at any later time.
    fn lose(&mut self, node: u32) {
        let session = self.sessions.insert(node, self.next_session).unwrap();
        self.next_session += 1;
        self.machine.session_lost(session, self.now);
    }
    fn tell_leaders(&mut self) {
        for (number, partition) in (0_u32..).zip(&self.partitions) {
            let leader = (NodeId(partition.leader), u64::from(partition.leader));
            self.machine.set_leader(tp(number), Some(leader), self.now);
        }
    }
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.tick(self.now);
    }
    fn grant(&mut self) {
        if self.machine.wants_identity() {
            self.next_producer += 1;
            // Two epochs are left, so that ids run out too.
            let identity = Identity {
                id: self.next_producer,
                epoch: Identity::LAST_EPOCH - 2,
            };
            self.machine.granted(identity, self.now);
        }
    }

    fn collect(&mut self) {
        for (batch, outcome) in self.machine.take_done() {
            for (index, value) in (0_u64..).zip(batch.items) {
                let before = self
                    .outcomes
                    .insert(value, (self.of[&value], outcome.clone(), index));
                assert!(before.is_none(), "{value} has two outcomes");
            }
        }
    }

    /// Everything heals; what is late arrives, before and after.
    fn settle(&mut self) {
        self.machine.flush(self.now);
        for round in 0..2_000_u32 {
            self.tell_leaders();
            self.grant();
            for node in 1..=NODES {
                self.take(node);
                self.serve(round as usize, None);
            }
            self.deliver();
            self.deliver();
            self.pass(Duration::from_millis(1));
            self.collect();
            if self.machine.is_idle() {
                break;
            }
        }
        assert!(self.machine.is_idle(), "something has no outcome");
        while !self.wire.is_empty() {
            self.serve(0, None);
        }
    }

    fn check(&self) {
        assert_eq!(
            self.outcomes.len() as u64,
            self.next_value,
            "each record has an outcome"
        );
        for partition in &self.partitions {
            assert!(
                partition.stored.is_sorted_by(|a, b| a < b),
                "order: {:?}",
                partition.stored
            );
        }
        for (value, (tp, outcome, index)) in &self.outcomes {
            let stored = &self.partitions[tp.partition.0 as usize].stored;
            match outcome {
                Outcome::Acknowledged { base_offset, .. } => {
                    let offset = (base_offset.0 + index) as usize;
                    assert_eq!(
                        stored.get(offset),
                        Some(value),
                        "acknowledged at its offset"
                    );
                }
                Outcome::Rejected(refusal) => {
                    assert!(!stored.contains(value), "{value} was rejected: {refusal:?}");
                }
                Outcome::Unknown(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_tell_the_truth(steps in prop::collection::vec((0_u8..34, any::<u32>()), 0..400)) {
        World::after(&steps);
    }

    #[test]
    fn without_faults_everything_is_acknowledged(
        steps in prop::collection::vec((0_u8..21, any::<u32>()), 0..300),
    ) {
        let world = World::after(&steps);
        let acknowledged = |outcome: &Outcome| matches!(outcome, Outcome::Acknowledged { .. });
        prop_assert!(world.outcomes.values().all(|(_, outcome, _)| acknowledged(outcome)));
        prop_assert_eq!(world.next_producer, 1);
    }
}

#[test]
fn at_most_five_batches_are_out_and_the_window_spans_from_the_oldest() {
    let mut world = World::new();
    world.tell_leaders();
    world.grant();
    for _ in 0..40 {
        world.append(0);
    }
    world.pass(Duration::from_millis(5));
    for _ in 0..20 {
        world.take(1);
    }
    assert_eq!(world.wire.len(), 5);
    // The four later ones are acknowledged, the first is not: still no room.
    for _ in 0..5 {
        world.serve(0, None);
    }
    let first = world.answers.pop_front();
    for _ in 0..4 {
        world.deliver();
    }
    world.take(1);
    assert!(world.wire.is_empty());
    world.answers.extend(first);
    world.deliver();
    for _ in 0..20 {
        world.take(1);
    }
    assert!(!world.wire.is_empty());
    world.settle();
    world.check();
}

/// Steps that the property test found.
const LATE: [(u8, u32); 61] = [
    (22, 114_275_486),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (23, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (6, 177_012_350),
    (0, 0),
    (27, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 1_755_852_311),
    (0, 2_950_000_321),
    (0, 27_713_407),
    (6, 0),
    (6, 785_937),
    (24, 100_668_154),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (30, 1_973_011_470),
    (24, 82_140_630),
    (24, 1_724_041_738),
    (0, 1_660_949_538),
    (30, 1_224_430_988),
    (0, 0),
    (0, 0),
    (0, 0),
    (30, 2_234_238_204),
    (0, 0),
    (24, 418_061_798),
    (30, 2_747_424_430),
    (16, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (11, 0),
    (0, 0),
    (6, 380_405_969),
    (0, 0),
    (29, 0),
    (16, 0),
    (24, 3_167_734_732),
    (6, 173_849_399),
    (21, 16_146_365),
    (30, 128_226_636),
    (31, 0),
    (6, 839_124_740),
    (0, 0),
    (11, 1_622_832_829),
];

/// A batch that was given up stayed on its way while the epochs of its id ran out, and arrived behind what was
/// sent under the next id.
#[test]
fn nothing_that_was_given_up_arrives_behind_a_new_id() {
    let world = World::after(&LATE);
    assert_eq!(world.next_producer, 1);
}

/// A machine that knows a leader for partition 0, and one record handed over to it.
fn with_one_record() -> World {
    let mut world = World::new();
    world.tell_leaders();
    world.grant();
    world.append(0);
    world.pass(Duration::from_millis(5));
    world
}

fn delete(world: &mut World) {
    let cause = Cause::Broker {
        code: ErrorCode::TopicDeleted,
        message: String::new(),
    };
    world.machine.topic_deleted(tp(0), cause, world.now);
    world.collect();
}

fn outcome(world: &World, value: u64) -> Option<&'static str> {
    Some(match &world.outcomes.get(&value)?.1 {
        Outcome::Acknowledged { .. } => "acknowledged",
        Outcome::Rejected(refusal) => {
            assert_eq!(refusal.cause.code(), Some(ErrorCode::TopicDeleted));
            "rejected"
        }
        Outcome::Unknown(refusal) => {
            assert_eq!(refusal.cause.code(), Some(ErrorCode::TopicDeleted));
            "unknown"
        }
    })
}

#[test]
fn what_was_never_sent_is_rejected_as_soon_as_its_topic_is_deleted() {
    let mut world = with_one_record();
    delete(&mut world);
    assert_eq!(outcome(&world, 0), Some("rejected"));
    // A record whose sender did not know yet.
    world.append(0);
    world.pass(Duration::from_millis(5));
    world.collect();
    assert_eq!(outcome(&world, 1), Some("rejected"));
    assert!(world.machine.is_idle());
}

#[test]
fn what_was_sent_before_its_topic_was_deleted_has_its_answer_or_is_unknown() {
    for answered in [true, false] {
        let mut world = with_one_record();
        world.take(1);
        delete(&mut world);
        assert_eq!(outcome(&world, 0), None, "its answer is on the way");
        if answered {
            world.serve(0, None);
            world.deliver();
        } else {
            world.lose(1); // and nobody is left to be asked
        }
        world.collect();
        let expected = if answered { "acknowledged" } else { "unknown" };
        assert_eq!(outcome(&world, 0), Some(expected));
        assert!(world.machine.is_idle());
    }
}
