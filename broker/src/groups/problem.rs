//! What an assignment is computed from: the members' subscriptions over the cluster image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use highwater_metadata::{Image, Topic};
use highwater_proto::internal::GroupMemberSpec;
use highwater_proto::{ShardId, TopicId};
use highwater_shard::groups::Group;
use highwater_shard::groups::assignor::{self, Candidate, Problem, Racks};
use regex::bytes::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 256 << 10;
/// Patterns kept compiled, for one shard.
const PATTERNS_KEPT: usize = 256;

/// A pattern that must match a topic's whole name.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    // Compiled alone first, so that it cannot close the group around it.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// Names of topics are ASCII, so the tables of Unicode are left out.
fn compile(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(PATTERN_BYTES)
        .build();
    compiled.map_err(|error| one_line(&error))
}

fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.trim_start_matches("error: ").to_owned()
}

/// Compiled patterns, so that they are not compiled for every assignment.
#[derive(Debug, Default)]
pub(super) struct Patterns(HashMap<String, Option<Regex>>);

impl Patterns {
    fn get(&mut self, pattern: &str) -> Option<&Regex> {
        if !self.0.contains_key(pattern) {
            if self.0.len() >= PATTERNS_KEPT {
                self.0.clear();
            }
            self.0
                .insert(pattern.to_owned(), compile_pattern(pattern).ok());
        }
        self.0.get(pattern)?.as_ref()
    }
}

/// The topics that a member is subscribed to and that exist.
pub(super) fn topics_of<'a>(
    image: &'a Image,
    spec: &'a GroupMemberSpec,
    patterns: &mut Patterns,
) -> Vec<&'a Arc<Topic>> {
    let mut topics: Vec<&Arc<Topic>> = spec
        .topics
        .iter()
        .filter_map(|name| image.topic_by_name(name))
        .collect();
    if !spec.pattern.is_empty()
        && let Some(pattern) = patterns.get(&spec.pattern)
    {
        topics.extend(
            image
                .topics()
                .filter(|t| pattern.is_match(t.name().as_bytes())),
        );
    }
    topics
}

/// Every topic that some member of a group is subscribed to.
#[must_use]
pub fn subscribed_topics(image: &Image, group: &Group) -> BTreeMap<TopicId, Arc<Topic>> {
    let mut patterns = Patterns::default();
    let mut topics = BTreeMap::new();
    for member in group.members.values() {
        let of_member = topics_of(image, &member.spec, &mut patterns);
        topics.extend(of_member.into_iter().map(|t| (t.id(), Arc::clone(t))));
    }
    topics
}

/// `None` while the image is older than what the group was told already: members would be asked to
/// give up what they should keep.
pub(super) fn of(image: &Image, group: &Group, patterns: &mut Patterns) -> Option<Problem> {
    let mut problem = Problem::default();
    let mut racks: BTreeMap<ShardId, Racks> = BTreeMap::new();
    for (id, member) in &group.members {
        if !member.target.iter().all(|tp| is_known(image, tp)) {
            return None;
        }
        let mut candidate = Candidate {
            id: Arc::clone(id),
            key: member
                .instance_id()
                .map_or_else(|| Arc::clone(id), Arc::from),
            rack: member.spec.rack.clone(),
            topics: BTreeSet::new(),
            current: member.target.clone(),
        };
        for topic in topics_of(image, &member.spec, patterns) {
            // Partitions that are still being made cannot be read; its turn comes when they can.
            if !topic.is_ready() && !member.target.iter().any(|tp| tp.topic == topic.id()) {
                continue;
            }
            candidate.topics.insert(topic.id());
            problem.topics.entry(topic.id()).or_insert_with(|| {
                let shards = topic.shards().take(topic.partition_count() as usize);
                let racks = shards.map(|shard| {
                    let racks = racks.entry(shard).or_insert_with(|| racks_of(image, shard));
                    Arc::clone(racks)
                });
                assignor::Topic {
                    racks: racks.collect(),
                }
            });
        }
        problem.members.push(candidate);
    }
    Some(problem)
}

fn is_known(image: &Image, tp: &highwater_proto::TopicPartition) -> bool {
    match image.topic(tp.topic) {
        Some(topic) => tp.partition.0 < topic.partition_count(),
        None => image.was_deleted(tp.topic),
    }
}

fn racks_of(image: &Image, shard: ShardId) -> Racks {
    let replicas = image.shard(shard).map(|shard| shard.replicas.as_slice());
    let brokers = replicas.into_iter().flatten();
    let racks = brokers.filter_map(|id| Some(image.broker(*id)?.rack.clone()));
    Arc::new(racks.filter(|rack| !rack.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_cannot_break_out() {
        let pattern = compile_pattern("orders|bill.*").expect("a pattern");
        let matching = ["orders", "billing"].map(|name| pattern.is_match(name.as_bytes()));
        let others =
            ["my-orders", "orders-2", "abill"].map(|name| pattern.is_match(name.as_bytes()));
        assert_eq!((matching, others), ([true; 2], [false; 3]));
        assert!(compile_pattern(r"t\d\w").is_ok_and(|p| p.is_match(b"t1x")));
        for wrong in ["a)|(?:b", "[", "(a"] {
            let reason = compile_pattern(wrong).expect_err("no pattern");
            assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        }
        compile_pattern("(a{1000}){1000}").expect_err("too large");
    }
}
