//! Commands to groups, one by one.

use std::sync::Arc;

use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{
    GroupAcknowledge, GroupAssign, GroupCommand, GroupCommit, GroupJoin, GroupMemberSpec,
    GroupOffset, GroupRemove, GroupTarget, GroupTopic,
};
use highwater_proto::{PartitionId, TopicId, TopicPartition};

use super::*;
use crate::{Effect, EntryContext, FeatureLevel, ShardCommand, ShardReply, ShardState};

pub(super) const TOPIC: u64 = 7;
pub(super) const GROUP: &str = "g";

pub(super) fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(TOPIC), PartitionId(partition))
}

pub(super) fn offset(partition: u32, offset: u64) -> GroupOffset {
    GroupOffset {
        topic: TOPIC,
        partition,
        offset,
        ..GroupOffset::default()
    }
}

/// A shard, and the time of its leader.
pub(super) struct Life {
    pub state: ShardState,
    pub position: u64,
    pub time: i64,
}

pub(super) type Outcome = Result<GroupOutcome, GroupRefusal>;

impl Life {
    pub(super) fn new() -> Self {
        let mut life = Self {
            state: ShardState::new(),
            position: 0,
            time: 1_000,
        };
        life.apply(ShardCommand::RaiseFeatureLevel {
            level: FeatureLevel::GROUPS,
        });
        life
    }
    pub(super) fn apply(&mut self, command: ShardCommand) -> (ShardReply, Vec<Effect>) {
        self.position += 1;
        let at = EntryContext {
            position: self.position,
            leadership: 1,
        };
        let decoded = ShardCommand::decode(&command.encode()).expect("own command");
        assert_eq!(decoded, command);
        let mut effects = Vec::new();
        let reply = self.state.apply(at, command, &mut effects);
        assert_eq!(ShardReply::decode(&reply.encode()).as_ref(), Ok(&reply));
        (reply, effects)
    }
    pub(super) fn act(&mut self, action: Action) -> Outcome {
        let command = GroupCommand {
            group: GROUP.to_owned(),
            time_ms: self.time,
            action: Some(action),
        };
        match self.apply(ShardCommand::Group(Box::new(command))).0 {
            ShardReply::Group(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn group(&self) -> &Group {
        self.state.group(GROUP).expect("there")
    }
    pub(super) fn member(&self, id: &str) -> &Member {
        &self.group().members[id]
    }
    pub(super) fn join(&mut self, id: &str, spec: GroupMemberSpec) -> Outcome {
        self.act(Action::Join(GroupJoin {
            member_id: id.to_owned(),
            spec: Some(spec),
        }))
    }
    /// Joins with a session, and a subscription that makes no difference here.
    pub(super) fn simple(&mut self, id: &str) {
        let spec = GroupMemberSpec {
            topics: vec!["t".to_owned()],
            ..GroupMemberSpec::default()
        };
        self.join(id, spec).expect("joined");
    }
    pub(super) fn assign(&mut self, targets: &[(&str, &[u32])]) -> Outcome {
        let generation = self.group().generation;
        let targets = targets.iter().map(|(id, partitions)| GroupTarget {
            member_id: (*id).to_owned(),
            topics: vec![GroupTopic {
                topic: TOPIC,
                partitions: partitions.to_vec(),
            }],
        });
        self.act(Action::Assign(GroupAssign {
            generation,
            targets: targets.collect(),
        }))
    }
    pub(super) fn acknowledge(&mut self, id: &str, epoch: u64) -> Outcome {
        self.act(Action::Acknowledge(GroupAcknowledge {
            member_id: id.to_owned(),
            epoch,
            ..GroupAcknowledge::default()
        }))
    }
    pub(super) fn remove(&mut self, id: &str) -> Outcome {
        self.act(Action::Remove(GroupRemove {
            member_ids: vec![id.to_owned()],
            ..GroupRemove::default()
        }))
    }
    pub(super) fn commit(&mut self, id: &str, epoch: u64, offsets: &[(u32, u64)]) -> Outcome {
        let offsets = offsets.iter().map(|(p, o)| offset(*p, *o));
        self.act(Action::Commit(GroupCommit {
            member_id: id.to_owned(),
            epoch,
            offsets: offsets.collect(),
            ..GroupCommit::default()
        }))
    }
    pub(super) fn held(&self, id: &str) -> Vec<u32> {
        self.member(id)
            .assigned()
            .map(|(tp, _)| tp.partition.0)
            .collect()
    }
    fn revoking(&self, id: &str) -> Vec<u32> {
        self.member(id)
            .revoking()
            .map(|tp| tp.partition.0)
            .collect()
    }
    pub(super) fn committed(&self, partition: u32) -> Option<u64> {
        self.group().offsets.get(&tp(partition)).map(|c| c.offset.0)
    }
    pub(super) fn restart(&mut self) {
        let bytes = self.state.encode_snapshot();
        let restored = ShardState::decode_snapshot(&bytes).expect("own snapshot");
        assert_eq!(restored, self.state);
        assert_eq!(restored.encode_snapshot(), bytes);
        self.state = restored;
    }
}

pub(super) fn one_item(outcome: Outcome) -> ItemOutcome {
    let items = outcome.expect("done").items;
    assert_eq!(items.len(), 1, "{items:?}");
    items[0]
}

#[test]
fn a_shard_that_does_not_know_groups_yet_refuses_them() {
    let mut life = Life::new();
    life.state = ShardState::new();
    let refused = life.join("m", GroupMemberSpec::default());
    assert_eq!(refused, Err(GroupRefusal::Unsupported));
    assert_eq!(life.state.groups().count(), 0);
}

#[test]
fn a_partition_moves_only_when_its_holder_has_given_it_up_and_the_others_go_on() {
    let mut life = Life::new();
    life.simple("a");
    assert_eq!(life.group().phase(), GroupPhase::Assigning);
    life.assign(&[("a", &[0, 1, 2])]).expect("assigned");
    assert_eq!(
        (life.held("a"), life.group().phase()),
        (vec![0, 1, 2], GroupPhase::Stable)
    );
    let before = life.member("a").epoch;
    life.simple("b");
    life.assign(&[("a", &[0, 1]), ("b", &[2])])
        .expect("assigned");
    assert_eq!((life.held("a"), life.revoking("a")), (vec![0, 1], vec![2]));
    assert_eq!(life.held("b"), [0u32; 0], "still in other hands");
    assert_eq!(life.group().phase(), GroupPhase::Reconciling);
    // What it keeps it commits right through, under either epoch; what it gives up until it has.
    let epoch = life.member("a").epoch;
    assert!(epoch > before);
    let outcome = life.commit("a", before, &[(0, 5), (2, 9)]).expect("done");
    assert!(outcome.items.iter().all(|item| item.refusal.is_none()));
    // An acknowledgement of an earlier assignment gives up nothing.
    life.acknowledge("a", before).expect("done");
    assert_eq!(life.revoking("a"), [2]);
    life.acknowledge("a", epoch).expect("done");
    assert_eq!((life.held("a"), life.held("b")), (vec![0, 1], vec![2]));
    assert_eq!(life.group().phase(), GroupPhase::Stable);
    let item = one_item(life.commit("a", epoch, &[(2, 10)]));
    assert_eq!(
        (item.refusal, item.value),
        (Some(GroupRefusal::FencedMember), Some(9))
    );
    let granted = life.member("b").epoch;
    assert_eq!(
        one_item(life.commit("b", granted, &[(2, 10)])).refusal,
        None
    );
    life.restart();
}

#[test]
fn an_expelled_member_and_one_of_an_earlier_life_are_fenced() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let old = life.member("a").epoch;
    life.remove("a").expect("expelled");
    life.simple("b");
    assert_eq!(
        life.commit("a", old, &[(0, 5)]),
        Err(GroupRefusal::UnknownMember)
    );
    // It comes back under its id, and gets its partition back: what it did before is void.
    life.remove("b").expect("left");
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let item = one_item(life.commit("a", old, &[(0, 5)]));
    assert_eq!(item.refusal, Some(GroupRefusal::FencedMember));
    let now = life.member("a").epoch;
    assert_eq!(
        one_item(life.commit("a", now + 1, &[(0, 5)])).refusal,
        Some(GroupRefusal::FencedMember)
    );
    assert_eq!(one_item(life.commit("a", now, &[(0, 5)])).value, Some(5));
}

#[test]
fn an_expiry_that_comes_late_changes_nothing() {
    let mut life = Life::new();
    life.simple("a");
    let joined = life.member("a").joined;
    life.simple("a");
    let expire = |joined, unacknowledged| {
        Action::Remove(GroupRemove {
            member_ids: vec!["a".to_owned()],
            joined,
            unacknowledged,
            ..GroupRemove::default()
        })
    };
    assert_eq!(
        life.act(expire(joined, 0)),
        Err(GroupRefusal::Stale),
        "it joined again"
    );
    life.assign(&[("a", &[0, 1])]).expect("assigned");
    life.assign(&[("a", &[0])]).expect("assigned");
    let joined = life.member("a").joined;
    let owed = life.member("a").owes().expect("something");
    life.acknowledge("a", owed).expect("done");
    assert_eq!(
        life.act(expire(joined, owed)),
        Err(GroupRefusal::Stale),
        "it acknowledged"
    );
    assert_eq!(life.act(expire(joined, 0)).map(|o| o.count), Ok(1));
    assert_eq!(life.group().phase(), GroupPhase::Empty);
}

#[test]
fn an_assignment_for_other_members_is_refused() {
    let mut life = Life::new();
    life.simple("a");
    let generation = life.group().generation;
    life.simple("b");
    let stale = Action::Assign(GroupAssign {
        generation,
        ..GroupAssign::default()
    });
    assert_eq!(life.act(stale), Err(GroupRefusal::Stale));
    // Whatever an assignment says, a partition has one holder.
    life.assign(&[("a", &[0]), ("b", &[0])]).expect("assigned");
    assert_eq!((life.held("a"), life.held("b")), (vec![0], vec![]));
}

#[test]
fn a_static_member_takes_its_place_over_and_fences_the_old_process() {
    let mut life = Life::new();
    let spec = |rack: &str| GroupMemberSpec {
        instance_id: "i1".to_owned(),
        topics: vec!["t".to_owned()],
        rack: rack.to_owned(),
        ..GroupMemberSpec::default()
    };
    life.join("old", spec("")).expect("joined");
    life.simple("other");
    life.assign(&[("old", &[0, 1]), ("other", &[2])])
        .expect("assigned");
    let old_epoch = life.member("old").epoch;
    life.join("new", spec("")).expect("took over");
    assert_eq!(
        (life.held("new"), life.group().phase()),
        (vec![0, 1], GroupPhase::Stable)
    );
    assert!(
        life.member("new")
            .held
            .values()
            .all(|h| h.granted > old_epoch)
    );
    let commit = |id: &str, epoch| {
        Action::Commit(GroupCommit {
            member_id: id.to_owned(),
            instance_id: "i1".to_owned(),
            epoch,
            offsets: vec![offset(0, 5)],
            ..GroupCommit::default()
        })
    };
    assert_eq!(
        life.act(commit("old", old_epoch)),
        Err(GroupRefusal::FencedInstance)
    );
    assert_eq!(
        life.join("old", spec("")),
        Err(GroupRefusal::FencedInstance),
        "no ping-pong"
    );
    let epoch = life.member("new").epoch;
    assert_eq!(one_item(life.act(commit("new", epoch))).refusal, None);
    // Of one with other wishes the partitions are shared out anew.
    life.join("newest", spec("r2")).expect("took over");
    assert_eq!(life.group().phase(), GroupPhase::Assigning);
    assert_eq!(life.held("newest"), [0, 1]);
    life.restart();
}

#[test]
fn bounds_are_kept() {
    let mut life = Life::new();
    for n in 0..MAX_MEMBERS {
        life.simple(&format!("m{n}"));
    }
    let full = life.join("one more", GroupMemberSpec::default());
    assert_eq!(full, Err(GroupRefusal::GroupFull));
    let large = GroupMemberSpec {
        topics: vec!["x".repeat(MAX_SPEC_BYTES + 1)],
        ..GroupMemberSpec::default()
    };
    assert_eq!(life.join("m1", large), Err(GroupRefusal::Limit));
    assert_eq!(
        life.join("", GroupMemberSpec::default()),
        Err(GroupRefusal::Limit)
    );
}

#[test]
fn only_what_members_must_know_is_news() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    let command = |action| {
        ShardCommand::Group(Box::new(GroupCommand {
            group: GROUP.to_owned(),
            time_ms: 1_000,
            action: Some(action),
        }))
    };
    let commit = GroupCommit {
        member_id: "a".to_owned(),
        epoch,
        offsets: vec![offset(0, 1)],
        ..GroupCommit::default()
    };
    let (_, effects) = life.apply(command(Action::Commit(commit)));
    let changed = |news| Effect::GroupChanged {
        group: Arc::from(GROUP),
        news,
    };
    assert_eq!(effects, [changed(false)]);
    let (_, effects) = life.apply(command(Action::Acknowledge(GroupAcknowledge {
        member_id: "a".to_owned(),
        epoch,
        ..GroupAcknowledge::default()
    })));
    assert_eq!(effects, [], "nothing changed");
}
