//! Assignments: balanced, sticky, near, complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::{PartitionId, TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::{Candidate, Problem, Racks, Strategy, Targets, Topic, assign};

fn racks(names: &[&str]) -> Racks {
    Arc::new(names.iter().map(|name| (*name).to_owned()).collect())
}

fn member(number: usize, topics: &[u64]) -> Candidate {
    let id: Arc<str> = format!("member-{number:04}").into();
    Candidate {
        key: Arc::clone(&id),
        id,
        topics: topics.iter().copied().map(TopicId).collect(),
        ..Candidate::default()
    }
}

/// Topics numbered from 1, with these numbers of partitions.
fn problem(members: Vec<Candidate>, partitions: &[u32]) -> Problem {
    let topic = |count: &u32| Topic {
        racks: (0..*count).map(|_| racks(&[])).collect(),
    };
    Problem {
        topics: (1..)
            .map(TopicId)
            .zip(partitions.iter().map(topic))
            .collect(),
        members,
    }
}

/// Makes what was computed the state that the next computation begins with.
fn settle(problem: &mut Problem, targets: &Targets) {
    for member in &mut problem.members {
        member.current = targets.get(&member.id).cloned().unwrap_or_default();
    }
}

fn moved(before: &Problem, targets: &Targets) -> usize {
    let kept = |member: &Candidate| {
        let now = &targets[&member.id];
        member.current.difference(now).count()
    };
    before.members.iter().map(kept).sum()
}

fn loads(targets: &Targets) -> Vec<usize> {
    let mut loads: Vec<usize> = targets.values().map(BTreeSet::len).collect();
    loads.sort_unstable();
    loads
}

/// Everything that somebody wants is given to exactly one who wants it.
fn check(problem: &Problem, targets: &Targets) {
    let mut owners: BTreeMap<TopicPartition, &str> = BTreeMap::new();
    for member in &problem.members {
        for tp in &targets[&member.id] {
            assert!(member.topics.contains(&tp.topic), "{} got {tp}", member.id);
            assert_eq!(owners.insert(*tp, &member.id), None, "{tp} given twice");
        }
    }
    let wanted = problem.partitions().filter(|tp| {
        let mut members = problem.members.iter();
        members.any(|member| member.topics.contains(&tp.topic))
    });
    assert_eq!(
        wanted.count(),
        owners.len(),
        "something was given to nobody"
    );
}

/// The best possible loads, by brute force over chains: no member can hand one on, over any number
/// of others, to one that has at least two less.
fn is_optimal(problem: &Problem, targets: &Targets) -> bool {
    let load = |member: &Candidate| targets[&member.id].len();
    problem.members.iter().all(|source| {
        let mut reached: Vec<&Candidate> = vec![source];
        let mut at = 0;
        while at < reached.len() {
            let topics: BTreeSet<TopicId> =
                targets[&reached[at].id].iter().map(|tp| tp.topic).collect();
            for next in &problem.members {
                let new = reached.iter().all(|known| known.id != next.id);
                if new && !next.topics.is_disjoint(&topics) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        reached.iter().all(|end| load(end) + 2 > load(source))
    })
}

#[test]
fn one_more_member_takes_its_share_and_nothing_else_moves() {
    let mut problem = problem((0..4).map(|n| member(n, &[1, 2])).collect(), &[40, 60]);
    let first = assign(Strategy::Sticky, &problem);
    check(&problem, &first);
    assert_eq!(loads(&first), [25; 4]);
    settle(&mut problem, &first);
    problem.members.push(member(4, &[1, 2]));
    let second = assign(Strategy::Sticky, &problem);
    check(&problem, &second);
    assert_eq!(loads(&second), [20; 5]);
    assert_eq!(moved(&problem, &second), 20);
}

#[test]
fn of_a_member_that_leaves_only_its_own_partitions_move() {
    let mut problem = problem((0..5).map(|n| member(n, &[1])).collect(), &[103]);
    let first = assign(Strategy::Sticky, &problem);
    settle(&mut problem, &first);
    problem.members.remove(2);
    let second = assign(Strategy::Sticky, &problem);
    check(&problem, &second);
    assert_eq!(moved(&problem, &second), 0, "the others keep all they have");
    assert_eq!(loads(&second), [25, 26, 26, 26]);
}

#[test]
fn a_chain_of_members_hands_partitions_on() {
    // a has topic 1, c wants topic 2 alone: only b, between them, can make room.
    let members = vec![member(0, &[1]), member(1, &[1, 2]), member(2, &[2])];
    let mut problem = problem(members, &[5, 7]);
    let held = |topic: u64, numbers: std::ops::Range<u32>| {
        let numbers = numbers.map(PartitionId);
        numbers.map(move |n| TopicPartition::new(TopicId(topic), n))
    };
    problem.members[0].current = held(1, 0..5).collect();
    problem.members[1].current = held(2, 0..4).collect();
    problem.members[2].current = held(2, 4..7).collect();
    let targets = assign(Strategy::Sticky, &problem);
    check(&problem, &targets);
    assert_eq!(loads(&targets), [4, 4, 4]);
    assert_eq!(moved(&problem, &targets), 2);
}

#[test]
fn members_get_what_is_near_when_that_costs_no_balance() {
    let names = ["a", "b", "c"];
    let mut members: Vec<Candidate> = (0..6).map(|n| member(n, &[1])).collect();
    for (n, member) in members.iter_mut().enumerate() {
        names[n % 3].clone_into(&mut member.rack);
    }
    let partitions = (0..30).map(|n| racks(&[names[n % 3]])).collect();
    let mut problem = Problem {
        topics: BTreeMap::from([(TopicId(1), Topic { racks: partitions })]),
        members,
    };
    let near = |problem: &Problem, targets: &Targets| {
        let here = |member: &&Candidate, tp: &TopicPartition| {
            problem.topics[&tp.topic].racks[tp.partition.0 as usize].contains(&member.rack)
        };
        let members = problem.members.iter();
        members
            .map(|m| targets[&m.id].iter().filter(|tp| here(&m, tp)).count())
            .sum::<usize>()
    };
    let first = assign(Strategy::Sticky, &problem);
    assert_eq!((loads(&first), near(&problem, &first)), (vec![5; 6], 30));
    // Three more, one in each rack: they take what is near to them.
    settle(&mut problem, &first);
    for (n, name) in names.iter().enumerate() {
        let mut more = member(6 + n, &[1]);
        (*name).clone_into(&mut more.rack);
        problem.members.push(more);
    }
    let second = assign(Strategy::Sticky, &problem);
    check(&problem, &second);
    assert_eq!(loads(&second), [3, 3, 3, 3, 3, 3, 4, 4, 4]);
    assert!(near(&problem, &second) >= 28, "{}", near(&problem, &second));
}

#[test]
fn range_cuts_topics_at_the_same_places() {
    let problem = problem((0..3).map(|n| member(n, &[1, 2])).collect(), &[7, 7]);
    let targets = assign(Strategy::Range, &problem);
    check(&problem, &targets);
    let numbers = |id: &str, topic: u64| -> Vec<u32> {
        let mine = targets[id].iter().filter(|tp| tp.topic == TopicId(topic));
        mine.map(|tp| tp.partition.0).collect()
    };
    assert_eq!(numbers("member-0000", 1), [0, 1, 2]);
    assert_eq!(numbers("member-0001", 1), [3, 4]);
    assert_eq!(numbers("member-0001", 2), [3, 4]);
    assert_eq!(numbers("member-0002", 2), [5, 6]);
}

#[test]
fn round_robin_passes_over_who_does_not_want_it() {
    let members = vec![member(0, &[1]), member(1, &[1, 2]), member(2, &[1, 2])];
    let problem = problem(members, &[3, 4]);
    let targets = assign(Strategy::RoundRobin, &problem);
    check(&problem, &targets);
    assert_eq!(loads(&targets), [1, 3, 3]);
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the time is printed, nothing depends on it"
)]
fn a_large_group_is_computed_in_no_time() {
    let mut problem = problem((0..99).map(|n| member(n, &[1, 2])).collect(), &[500, 500]);
    let first = assign(Strategy::Sticky, &problem);
    settle(&mut problem, &first);
    problem.members.push(member(99, &[1, 2]));
    let begin = std::time::Instant::now();
    let second = assign(Strategy::Sticky, &problem);
    let took = begin.elapsed();
    check(&problem, &second);
    assert_eq!(loads(&second), [10; 100]);
    assert_eq!(moved(&problem, &second), 10);
    eprintln!("100 members, 1,000 partitions, one member more: {took:?}");
    // From one who has everything: the most moves that there can be.
    let everything = problem.partitions().collect();
    problem.members.iter_mut().for_each(|m| m.current.clear());
    problem.members[0].current = everything;
    let begin = std::time::Instant::now();
    let third = assign(Strategy::Sticky, &problem);
    eprintln!("99 members more at once: {:?}", begin.elapsed());
    assert_eq!(loads(&third), [10; 100]);
    assert_eq!(moved(&problem, &third), 990);
}

#[derive(Debug, Clone)]
enum Change {
    Join(Vec<u64>),
    Leave(usize),
    Grow(usize),
    Resubscribe(usize, Vec<u64>),
}

fn topics() -> impl proptest::strategy::Strategy<Value = Vec<u64>> {
    proptest::sample::subsequence(vec![1, 2, 3, 4], 1..=4)
}

fn changes() -> impl proptest::strategy::Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => topics().prop_map(Change::Join),
        2 => (0..8usize).prop_map(Change::Leave),
        1 => (0..4usize).prop_map(Change::Grow),
        1 => (0..8usize, topics()).prop_map(|(n, t)| Change::Resubscribe(n, t)),
    ];
    proptest::collection::vec(change, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_strategy_is_complete_and_sticky_is_balanced_and_stable(changes in changes()) {
        let mut counts = [6u32, 3, 9, 1];
        let mut now = problem(Vec::new(), &counts);
        let mut next = 0;
        for change in changes {
            let some = |n: usize, all: usize| n % all.max(1);
            match change {
                Change::Join(topics) => {
                    now.members.push(member(next, &topics));
                    next += 1;
                }
                Change::Leave(n) if !now.members.is_empty() => {
                    now.members.remove(some(n, now.members.len()));
                }
                Change::Resubscribe(n, topics) if !now.members.is_empty() => {
                    let at = some(n, now.members.len());
                    now.members[at].topics = topics.into_iter().map(TopicId).collect();
                }
                Change::Grow(n) => counts[n] += 2,
                Change::Leave(_) | Change::Resubscribe(..) => {}
            }
            let members = std::mem::take(&mut now.members);
            now = problem(members, &counts);
            for strategy in [Strategy::Range, Strategy::RoundRobin, Strategy::Sticky] {
                check(&now, &assign(strategy, &now));
            }
            let targets = assign(Strategy::Sticky, &now);
            prop_assert!(is_optimal(&now, &targets), "{:?}", loads(&targets));
            settle(&mut now, &targets);
            prop_assert_eq!(assign(Strategy::Sticky, &now), targets, "nothing changed, nothing moves");
        }
    }
}
