//! Random lives of a group, on two replicas, beside a model that knows who really works on what.
//!
//! Workers follow the protocol, but slowly: they learn of their assignment late, acknowledge late,
//! are expelled without knowing it, and go on committing. Whatever happens, no partition is worked
//! on by two members that both may commit, what is committed was finished by who held it, and in
//! the end everything has an owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupCommit, GroupMemberSpec, GroupReset};
use highwater_proto::{TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::assignor::{self, Candidate, Problem, Strategy, Topic};
use super::tests::{Life, TOPIC, offset, tp};
use super::{Group, GroupRefusal};

const WORKERS: usize = 5;
const MOST_PARTITIONS: u32 = 8;

#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    /// The coordinator computes and proposes.
    Assign,
    /// A worker hears of its newest assignment.
    Learn(usize),
    /// A worker acknowledges the newest assignment that it has heard of.
    Acknowledge(usize),
    /// A worker finishes a record of everything it works on, and commits.
    Work(usize),
    Leave(usize),
    /// The worker is removed, and does not know.
    Expel(usize),
    /// Another process takes the worker's static place.
    Replace(usize),
    Reset(u64),
    Grow,
    Restart,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let worker = || 0..WORKERS;
    let step = prop_oneof![
        3 => worker().prop_map(Step::Join),
        4 => Just(Step::Assign),
        6 => worker().prop_map(Step::Learn),
        6 => worker().prop_map(Step::Acknowledge),
        8 => worker().prop_map(Step::Work),
        1 => worker().prop_map(Step::Leave),
        1 => worker().prop_map(Step::Expel),
        1 => worker().prop_map(Step::Replace),
        1 => (0..5u64).prop_map(Step::Reset),
        1 => Just(Step::Grow),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A process, as it sees the world.
#[derive(Debug, Clone, Default)]
struct Worker {
    id: String,
    /// Epoch of the newest assignment it has heard of.
    epoch: u64,
    /// What it works on: since which epoch, and the next record.
    works_on: BTreeMap<TopicPartition, (u64, u64)>,
}

struct World {
    one: Life,
    other: Life,
    workers: Vec<Worker>,
    lives: usize,
    partitions: u32,
    /// What happened how often, so that dull lives are noticed.
    seen: BTreeMap<&'static str, u32>,
}

impl World {
    fn new() -> Self {
        let workers = (0..WORKERS).map(|n| Worker {
            id: format!("w{n}"),
            ..Worker::default()
        });
        Self {
            one: Life::new(),
            other: Life::new(),
            workers: workers.collect(),
            lives: 0,
            partitions: 4,
            seen: BTreeMap::new(),
        }
    }
    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
    fn act(&mut self, action: Action) -> super::tests::Outcome {
        let outcome = self.one.act(action.clone());
        assert_eq!(self.other.act(action), outcome);
        assert_eq!(self.one.state.hash(), self.other.state.hash());
        outcome
    }
    fn group(&self) -> Option<Arc<Group>> {
        self.one.state.group("g").cloned()
    }
    fn member_epoch(&self, worker: usize) -> Option<u64> {
        let group = self.group()?;
        Some(group.members.get(self.workers[worker].id.as_str())?.epoch)
    }

    fn join(&mut self, worker: usize, instance: String) {
        let spec = GroupMemberSpec {
            topics: vec!["t".to_owned()],
            instance_id: instance,
            ..GroupMemberSpec::default()
        };
        let join = highwater_proto::internal::GroupJoin {
            member_id: self.workers[worker].id.clone(),
            spec: Some(spec),
        };
        self.act(Action::Join(join)).expect("joined");
    }

    /// The coordinator shares all partitions out.
    fn assign(&mut self) {
        let Some(group) = self.group() else { return };
        let members = group.members.iter().map(|(id, member)| Candidate {
            id: Arc::clone(id),
            key: Arc::clone(id),
            topics: BTreeSet::from([TopicId(TOPIC)]),
            current: member.target.clone(),
            ..Candidate::default()
        });
        let topic = Topic {
            racks: vec![Arc::default(); self.partitions as usize],
        };
        let problem = Problem {
            topics: BTreeMap::from([(TopicId(TOPIC), topic)]),
            members: members.collect(),
        };
        let targets = assignor::assign(Strategy::Sticky, &problem);
        if let Some(assign) = assignor::command(&group, &targets) {
            self.act(Action::Assign(assign))
                .expect("nothing happened between");
        }
    }

    /// What a member does with an answer: it drops what is not named or was granted anew, and
    /// begins what is new at the committed offset.
    fn learn(&mut self, worker: usize) {
        let Some(group) = self.group() else { return };
        let id = self.workers[worker].id.clone();
        let Some(member) = group.members.get(id.as_str()) else {
            // Unknown member: it stops everything.
            self.workers[worker].works_on.clear();
            return;
        };
        let assigned: BTreeMap<_, _> = member.assigned().collect();
        let worker = &mut self.workers[worker];
        worker.epoch = member.epoch;
        worker.works_on.retain(|tp, (granted, _)| {
            assigned
                .get(tp)
                .is_some_and(|holding| holding.granted == *granted)
        });
        for (tp, holding) in assigned {
            let start = group.offsets.get(&tp).map_or(0, |c| c.offset.0);
            worker
                .works_on
                .entry(tp)
                .or_insert((holding.granted, start));
        }
    }

    fn work(&mut self, worker: usize) {
        let now = self.workers[worker].clone();
        let offsets = now
            .works_on
            .iter()
            .map(|(tp, (_, next))| offset(tp.partition.0, next + 1));
        let offsets: Vec<_> = offsets.collect();
        let before = self.group();
        let outcome = self.act(Action::Commit(GroupCommit {
            member_id: now.id.clone(),
            epoch: now.epoch,
            offsets: offsets.clone(),
            ..GroupCommit::default()
        }));
        let Ok(outcome) = outcome else {
            self.saw("a commit of one who is no member");
            return;
        };
        let before = before.expect("a member's group");
        for (offset, item) in offsets.iter().zip(outcome.items) {
            let at = tp(offset.partition);
            let committed = before.offsets.get(&at).map_or(0, |c| c.offset.0);
            let holding = before.members[now.id.as_str()].held.get(&at);
            match item.refusal {
                None => {
                    let (granted, next) = now.works_on[&at];
                    assert_eq!(
                        holding.map(|h| h.granted),
                        Some(granted),
                        "held as it believed"
                    );
                    assert!(
                        next >= committed,
                        "it had begun where the one before had ended"
                    );
                    self.workers[worker]
                        .works_on
                        .insert(at, (granted, next + 1));
                    self.saw("a commit");
                    if holding.is_some_and(|h| h.revoking != 0) {
                        self.saw("a commit of what is being given up");
                    }
                }
                Some(GroupRefusal::FencedMember) => self.saw("a commit of what was taken away"),
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    fn acknowledge(&mut self, worker: usize) {
        let (id, epoch) = {
            let worker = &self.workers[worker];
            (worker.id.clone(), worker.epoch)
        };
        let one = self.one.acknowledge(&id, epoch);
        assert_eq!(self.other.acknowledge(&id, epoch), one);
    }

    fn remove(&mut self, worker: usize) {
        let id = self.workers[worker].id.clone();
        let one = self.one.remove(&id);
        assert_eq!(self.other.remove(&id), one);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Join(worker) => {
                let instance = format!("i{worker}");
                if self.member_epoch(*worker).is_none() {
                    // A process that was told so begins again under a new id, or under its own.
                    self.workers[*worker].works_on.clear();
                    self.lives += 1;
                    if self.lives.is_multiple_of(2) {
                        self.workers[*worker].id = format!("w{worker}-{}", self.lives);
                    }
                    let id = self.workers[*worker].id.clone();
                    let replaced = self.group().is_some_and(|group| {
                        group
                            .members
                            .values()
                            .any(|m| m.replaced.as_deref() == Some(id.as_str()))
                    });
                    if !replaced {
                        self.join(*worker, instance);
                    }
                }
            }
            Step::Assign => self.assign(),
            Step::Learn(worker) => self.learn(*worker),
            Step::Acknowledge(worker) => self.acknowledge(*worker),
            Step::Work(worker) => self.work(*worker),
            Step::Leave(worker) => {
                self.remove(*worker);
                self.workers[*worker].works_on.clear();
            }
            Step::Expel(worker) => self.remove(*worker),
            Step::Replace(worker) => {
                if self.member_epoch(*worker).is_some() {
                    self.lives += 1;
                    self.workers[*worker] = Worker {
                        id: format!("w{worker}-{}", self.lives),
                        ..Worker::default()
                    };
                    self.join(*worker, format!("i{worker}"));
                    self.saw("a static member that came back");
                }
            }
            Step::Reset(to) => {
                if self.group().is_some() {
                    let offsets = (0..self.partitions).map(|p| offset(p, *to));
                    let reset = GroupReset {
                        offsets: offsets.collect(),
                        force: true,
                    };
                    self.act(Action::Reset(reset)).expect("forced");
                }
            }
            Step::Grow => self.partitions = (self.partitions + 1).min(MOST_PARTITIONS),
            Step::Restart => self.other.restart(),
        }
        self.check();
    }

    /// One holder for each partition; what two workers both believe in, one of them cannot commit.
    fn check(&mut self) {
        let Some(group) = self.group() else { return };
        let held: usize = group.members.values().map(|m| m.held.len()).sum();
        assert_eq!(held, group.holders().len(), "a partition has two holders");
        for partition in 0..self.partitions {
            let may_commit = self.workers.iter().filter(|worker| {
                let member = group.members.get(worker.id.as_str());
                worker.works_on.contains_key(&tp(partition))
                    && member.is_some_and(|m| m.holds_under(tp(partition), worker.epoch))
            });
            assert!(
                may_commit.count() <= 1,
                "two may commit partition {partition}"
            );
        }
        let both = (0..self.partitions).any(|partition| {
            let workers = self.workers.iter();
            workers
                .filter(|w| w.works_on.contains_key(&tp(partition)))
                .count()
                > 1
        });
        if both {
            self.saw("a zombie beside the new owner");
        }
    }

    /// Everyone does what it should: everything gets an owner.
    fn settle(&mut self) {
        if self.group().is_none_or(|group| group.members.is_empty()) {
            self.step(&Step::Join(0));
        }
        for _ in 0..3 {
            self.step(&Step::Assign);
            for worker in 0..WORKERS {
                self.step(&Step::Learn(worker));
                self.step(&Step::Acknowledge(worker));
            }
        }
        let group = self.group().expect("it has a member");
        assert_eq!(group.phase(), super::GroupPhase::Stable);
        assert_eq!(group.holders().len(), self.partitions as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn random_lives_have_one_owner_for_each_partition(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
    }
}

/// The test above would prove nothing if its lives were dull.
#[test]
fn random_lives_meet_everything() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..100 {
        let mut world = World::new();
        let steps = steps().new_tree(&mut runner).expect("steps").current();
        steps.iter().for_each(|step| world.step(step));
        for (what, count) in world.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    for what in [
        "a commit",
        "a commit of what is being given up",
        "a commit of what was taken away",
        "a commit of one who is no member",
        "a static member that came back",
        "a zombie beside the new owner",
    ] {
        assert!(
            seen.get(what).is_some_and(|count| *count >= 5),
            "{what}: {seen:?}"
        );
    }
}
