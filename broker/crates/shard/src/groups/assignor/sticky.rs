//! Sticky: balanced, with as few moves as can be, near the member if possible.
//!
//! Everyone keeps what it has; what nobody has goes to who has least; then partitions move from
//! who has more to who has at least two less, also along a chain of members when the two share no
//! topic. When no such chain is left, no assignment is better balanced (the same argument as for
//! optimal semi-matchings: Harvey, Ladner, Lovasz and Tamir, 2003). A rack decides only between
//! choices that are equally good otherwise: nothing moves for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_proto::{PartitionId, TopicId, TopicPartition};

use super::{Candidate, Problem, Targets};

pub(super) fn assign(problem: &Problem) -> Targets {
    let mut sharing = Sharing::new(problem);
    sharing.keep();
    sharing.fill();
    sharing.balance();
    let mut targets = problem.empty_targets();
    for (member, owned) in sharing.members.iter().zip(&sharing.owned) {
        let all = owned.iter().flat_map(|(topic, numbers)| {
            let numbers = numbers.iter();
            numbers.map(|number| TopicPartition::new(*topic, PartitionId(*number)))
        });
        targets.entry(member.id.clone()).or_default().extend(all);
    }
    targets
}

/// Members are named by their place in `members`.
struct Sharing<'a> {
    problem: &'a Problem,
    members: Vec<&'a Candidate>,
    /// What each member has so far, by topic.
    owned: Vec<BTreeMap<TopicId, BTreeSet<u32>>>,
    load: Vec<usize>,
    /// Who is subscribed to a topic.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
}

impl<'a> Sharing<'a> {
    fn new(problem: &'a Problem) -> Self {
        let members = problem.sorted();
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            for topic in &member.topics {
                subscribers.entry(*topic).or_default().push(at);
            }
        }
        Self {
            problem,
            owned: vec![BTreeMap::new(); members.len()],
            load: vec![0; members.len()],
            members,
            subscribers,
        }
    }
    fn give(&mut self, member: usize, tp: TopicPartition) {
        let owned = self.owned[member].entry(tp.topic).or_default();
        self.load[member] += usize::from(owned.insert(tp.partition.0));
    }
    fn take(&mut self, member: usize, tp: TopicPartition) {
        if let Some(owned) = self.owned[member].get_mut(&tp.topic) {
            self.load[member] -= usize::from(owned.remove(&tp.partition.0));
            if owned.is_empty() {
                self.owned[member].remove(&tp.topic);
            }
        }
    }
    /// Whether a replica of the partition is in the member's rack.
    fn is_near(&self, member: usize, tp: TopicPartition) -> bool {
        let rack = &self.members[member].rack;
        let topic = self.problem.topics.get(&tp.topic);
        let racks = topic.and_then(|topic| topic.racks.get(tp.partition.0 as usize));
        !rack.is_empty() && racks.is_some_and(|racks| racks.contains(rack))
    }

    fn keep(&mut self) {
        let mut taken: BTreeSet<TopicPartition> = BTreeSet::new();
        for at in 0..self.members.len() {
            let member = self.members[at];
            for tp in &member.current {
                let topic = self.problem.topics.get(&tp.topic);
                let exists = topic.is_some_and(|t| (tp.partition.0 as usize) < t.racks.len());
                if exists && member.topics.contains(&tp.topic) && taken.insert(*tp) {
                    self.give(at, *tp);
                }
            }
        }
    }

    /// Gives what nobody has to who has least. Who is near comes first, up to a fair share.
    fn fill(&mut self) {
        let taken: BTreeSet<TopicPartition> = self.all_owned();
        let free: Vec<TopicPartition> = self
            .problem
            .partitions()
            .filter(|tp| !taken.contains(tp) && self.subscribers.contains_key(&tp.topic))
            .collect();
        let total = taken.len() + free.len();
        let share = total.div_ceil(self.members.len().max(1));
        let mut rest = Vec::new();
        for tp in free {
            let near = self
                .subscribers_of(tp.topic)
                .filter(|at| self.load[*at] < share && self.is_near(*at, tp))
                .min_by_key(|at| (self.load[*at], *at));
            match near {
                Some(at) => self.give(at, tp),
                None => rest.push(tp),
            }
        }
        for tp in rest {
            let subscribers = self.subscribers_of(tp.topic);
            if let Some(at) = subscribers.min_by_key(|at| (self.load[*at], *at)) {
                self.give(at, tp);
            }
        }
    }

    fn all_owned(&self) -> BTreeSet<TopicPartition> {
        let topics = self.owned.iter().flatten();
        topics
            .flat_map(|(topic, numbers)| {
                let numbers = numbers.iter();
                numbers.map(|number| TopicPartition::new(*topic, PartitionId(*number)))
            })
            .collect()
    }
    fn subscribers_of(&self, topic: TopicId) -> impl Iterator<Item = usize> + '_ {
        self.subscribers.get(&topic).into_iter().flatten().copied()
    }

    /// Each turn moves one partition from a member with the most to one with at least two less, so
    /// the sum of the squares of all loads falls, and it ends.
    fn balance(&mut self) {
        // Once no chain begins at a member with this load, none does until it gets more; loads of
        // sources only fall, so a member that failed is looked at again only with a smaller load.
        let mut failed: BTreeSet<usize> = BTreeSet::new();
        loop {
            let sources = (0..self.members.len()).filter(|at| !failed.contains(at));
            let source = sources.max_by_key(|at| (self.load[*at], std::cmp::Reverse(*at)));
            let Some(source) = source else { return };
            match self.chain(source) {
                Some(chain) => {
                    self.shift(source, &chain);
                    failed.clear();
                }
                None => drop(failed.insert(source)),
            }
        }
    }

    /// The shortest chain of members and topics from `source` to one with at least two less; of
    /// those at the same distance the one with least.
    fn chain(&self, source: usize) -> Option<Vec<(TopicId, usize)>> {
        let enough = self.load[source].checked_sub(2)?;
        let mut came: BTreeMap<usize, (usize, TopicId)> = BTreeMap::new();
        let mut seen_topics: BTreeSet<TopicId> = BTreeSet::new();
        let mut depth: BTreeMap<usize, usize> = BTreeMap::from([(source, 0)]);
        let mut queue = VecDeque::from([source]);
        let mut best: Option<(usize, usize, usize)> = None;
        while let Some(at) = queue.pop_front() {
            let here = depth[&at];
            if best.is_some_and(|(far, _, _)| here >= far) {
                break;
            }
            for topic in self.owned[at].keys() {
                if !seen_topics.insert(*topic) {
                    continue;
                }
                for next in self.subscribers_of(*topic) {
                    if depth.contains_key(&next) {
                        continue;
                    }
                    depth.insert(next, here + 1);
                    came.insert(next, (at, *topic));
                    queue.push_back(next);
                    let found = (here + 1, self.load[next], next);
                    if self.load[next] <= enough && best.is_none_or(|best| found < best) {
                        best = Some(found);
                    }
                }
            }
        }
        let mut chain = Vec::new();
        let mut at = best?.2;
        while let Some((from, topic)) = came.get(&at) {
            chain.push((*topic, at));
            at = *from;
        }
        chain.reverse();
        Some(chain)
    }

    /// Moves one partition over each link of a chain.
    fn shift(&mut self, source: usize, chain: &[(TopicId, usize)]) {
        let mut from = source;
        for (topic, to) in chain {
            // Between neighbours any topic that both may have will do, so the choice is larger.
            let topics: Vec<TopicId> = if chain.len() == 1 {
                let wanted = &self.members[*to].topics;
                let all = self.owned[from].keys().copied();
                all.filter(|topic| wanted.contains(topic)).collect()
            } else {
                vec![*topic]
            };
            if let Some(tp) = self.choose(from, *to, &topics) {
                self.take(from, tp);
                self.give(*to, tp);
            }
            from = *to;
        }
    }

    /// The partition whose move costs least: one that `from` did not have before, then one that is
    /// near to `to`, then one that is not near to `from`.
    fn choose(&self, from: usize, to: usize, topics: &[TopicId]) -> Option<TopicPartition> {
        let current = &self.members[from].current;
        let owned = topics.iter().flat_map(|topic| {
            let numbers = self.owned[from].get(topic).into_iter().flatten();
            numbers.map(|number| TopicPartition::new(*topic, PartitionId(*number)))
        });
        owned.min_by_key(|tp| {
            let back = !self.members[to].current.contains(tp);
            (
                current.contains(tp),
                back,
                !self.is_near(to, *tp),
                self.is_near(from, *tp),
                *tp,
            )
        })
    }
}
