//! Sessions: who is silent is expelled; nobody is, by a coordinator that was not there.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::internal::GroupMemberSpec;
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use highwater_shard::groups::{Group, Holding, Member};
use tokio::time::Instant;

use super::*;

const SESSION: Duration = Duration::from_secs(10);

fn member(joined: u64) -> Member {
    let spec = GroupMemberSpec {
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        ..GroupMemberSpec::default()
    };
    Member {
        spec: Arc::new(spec),
        joined,
        ..Member::default()
    }
}

fn groups(members: &[(&str, Member)]) -> Vec<(Arc<str>, Arc<Group>)> {
    let mut group = Group::default();
    for (id, member) in members {
        group.members.insert((*id).into(), Arc::new(member.clone()));
    }
    vec![("g".into(), Arc::new(group))]
}

struct Time(Sessions, Instant);

impl Time {
    fn new() -> Self {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        sessions.restart(now);
        Self(sessions, now)
    }
    /// Ticks on time for a while, and says who was to be expelled.
    fn pass(&mut self, time: Duration, groups: &[(Arc<str>, Arc<Group>)]) -> Vec<Expiry> {
        let end = self.1 + time;
        let mut expired = Vec::new();
        while self.1 < end {
            self.1 += TICK;
            expired = self.0.tick(self.1, groups);
        }
        expired
    }
    fn jump(&mut self, time: Duration, groups: &[(Arc<str>, Arc<Group>)]) -> Vec<Expiry> {
        self.1 += time;
        self.0.tick(self.1, groups)
    }
}

#[test]
fn who_is_silent_for_its_session_timeout_is_expelled_and_who_is_heard_is_not() {
    let groups = groups(&[("loud", member(3)), ("silent", member(4))]);
    let mut time = Time::new();
    for _ in 0..9 {
        assert_eq!(time.pass(Duration::from_secs(1), &groups), []);
        time.0.heard("g", "loud");
    }
    let expired = time.pass(Duration::from_secs(2), &groups);
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].remove.member_ids, ["silent"]);
    assert_eq!(expired[0].remove.joined, 4);
}

#[test]
fn a_pause_of_the_coordinator_starts_sessions_anew() {
    let groups = groups(&[("m", member(3))]);
    let mut time = Time::new();
    assert_eq!(time.pass(SESSION - Duration::from_secs(1), &groups), []);
    assert_eq!(time.jump(Duration::from_secs(60), &groups), []);
    assert_eq!(time.pass(SESSION - Duration::from_secs(1), &groups), []);
    assert_eq!(time.pass(Duration::from_secs(2), &groups).len(), 1);
}

#[test]
fn a_slow_coordinator_counts_only_part_of_its_lateness() {
    let groups = groups(&[("m", member(3))]);
    let mut time = Time::new();
    for _ in 0..20 {
        assert_eq!(time.jump(Duration::from_millis(900), &groups), []);
    }
    // The first tick finds the member; the others, of 900 ms each, count as 500 ms: 9.5 s.
    assert_eq!(time.pass(Duration::from_secs(1), &groups).len(), 1);
}

#[test]
fn another_leadership_and_another_join_start_anew() {
    let first = groups(&[("m", member(3))]);
    let mut time = Time::new();
    assert_eq!(time.pass(SESSION - Duration::from_secs(1), &first), []);
    let now = time.1;
    time.0.restart(now);
    assert_eq!(time.pass(SESSION - Duration::from_secs(1), &first), []);
    let again = groups(&[("m", member(9))]);
    assert_eq!(time.pass(SESSION - Duration::from_secs(1), &again), []);
    let expired = time.pass(Duration::from_secs(2), &again);
    assert_eq!(expired[0].remove.joined, 9);
}

#[test]
fn who_does_not_give_up_partitions_is_expelled_after_its_rebalance_timeout() {
    let owing = |epoch: u64| {
        let mut owing = member(3);
        let holding = Holding {
            granted: 1,
            revoking: epoch,
        };
        let tp = TopicPartition::new(TopicId(1), PartitionId(0));
        owing.held.insert(tp, holding);
        groups(&[("m", owing)])
    };
    let mut time = Time::new();
    let beat = |time: &mut Time, seconds: u32, groups: &[(Arc<str>, Arc<Group>)]| {
        let mut expired = Vec::new();
        for _ in 0..seconds {
            expired = time.pass(Duration::from_secs(1), groups);
            time.0.heard("g", "m");
        }
        expired
    };
    assert_eq!(beat(&mut time, 19, &owing(7)), []);
    // It acknowledged that, and owes something newer: time counts from there.
    assert_eq!(beat(&mut time, 19, &owing(8)), []);
    let expired = beat(&mut time, 3, &owing(8));
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].remove.unacknowledged, 8);
}
