//! Offsets and parked keys: commits, resets, parking, redriving, forgetting.

use bytes::Bytes;
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{
    GroupCommand, GroupCommit, GroupCopy, GroupDelete, GroupPark, GroupParkKey, GroupReset,
    GroupSweep, GroupUnpark,
};

use super::tests::{Life, TOPIC, offset, one_item, tp};
use super::*;
use crate::{FeatureLevel, ShardCommand, ShardReply};

#[test]
fn commits_do_not_go_back_unless_asked_to() {
    let mut life = Life::new();
    assert_eq!(
        one_item(life.commit("", 0, &[(0, 10)])).value,
        Some(10),
        "from outside"
    );
    let item = one_item(life.commit("", 0, &[(0, 9)]));
    assert_eq!(
        (item.refusal, item.value),
        (Some(GroupRefusal::CommitBehind), Some(10))
    );
    assert_eq!(
        one_item(life.commit("", 0, &[(0, 10)])).refusal,
        None,
        "repeated"
    );
    let back = Action::Commit(GroupCommit {
        offsets: vec![offset(0, 3)],
        allow_rewind: true,
        ..GroupCommit::default()
    });
    assert_eq!(one_item(life.act(back)).value, Some(3));
    life.simple("a");
    assert_eq!(life.commit("", 0, &[(0, 11)]), Err(GroupRefusal::NotEmpty));
    let mut long = offset(0, 20);
    long.metadata = "x".repeat(MAX_METADATA_BYTES + 1);
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    let long = Action::Commit(GroupCommit {
        member_id: "a".to_owned(),
        epoch,
        offsets: vec![long, offset(0, 21)],
        ..GroupCommit::default()
    });
    let items = life.act(long).expect("done").items;
    assert_eq!(items[0].refusal, Some(GroupRefusal::MetadataTooLarge));
    assert_eq!((items[1].refusal, life.committed(0)), (None, Some(21)));
}

#[test]
fn a_reset_is_for_empty_groups_or_fences_what_members_did() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0, 1])]).expect("assigned");
    let epoch = life.member("a").epoch;
    life.commit("a", epoch, &[(0, 10), (1, 10)]).expect("done");
    let reset = |force| {
        Action::Reset(GroupReset {
            offsets: vec![offset(0, 2)],
            force,
        })
    };
    assert_eq!(life.act(reset(false)), Err(GroupRefusal::NotEmpty));
    life.act(reset(true)).expect("forced");
    let items = life
        .commit("a", epoch, &[(0, 11), (1, 11)])
        .expect("done")
        .items;
    assert_eq!(items[0].refusal, Some(GroupRefusal::FencedMember));
    assert_eq!(items[1].refusal, None, "untouched");
    assert_eq!((life.committed(0), life.held("a")), (Some(2), vec![0, 1]));
    let now = life.member("a").epoch;
    assert_eq!(one_item(life.commit("a", now, &[(0, 3)])).refusal, None);
    life.remove("a").expect("left");
    life.act(reset(false)).expect("reset");
    assert_eq!(life.committed(0), Some(2));
}

fn park(id: &str, epoch: u64, keys: &[(&str, u64)], offsets: &[(u32, u64)]) -> Action {
    let keys = keys.iter().map(|(key, offset)| GroupParkKey {
        topic: TOPIC,
        partition: 0,
        key: Bytes::copy_from_slice(key.as_bytes()),
        offset: *offset,
    });
    Action::Park(GroupPark {
        member_id: id.to_owned(),
        epoch,
        keys: keys.collect(),
        offsets: offsets.iter().map(|(p, o)| offset(*p, *o)).collect(),
        ..GroupPark::default()
    })
}

fn unpark(key: &str, redriven: u64) -> Action {
    Action::Unpark(GroupUnpark {
        keys: vec![GroupParkKey {
            topic: TOPIC,
            partition: 0,
            key: Bytes::copy_from_slice(key.as_bytes()),
            offset: redriven,
        }],
    })
}

#[test]
fn parked_keys_are_extended_redriven_and_survive() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    assert_eq!(
        life.act(park("a", epoch, &[("k", 4)], &[(0, 5)]))
            .map(|o| o.count),
        Ok(1)
    );
    assert_eq!(life.committed(0), Some(5));
    life.act(park("a", epoch, &[("k", 4)], &[(0, 5)]))
        .expect("repeated");
    life.act(park("a", epoch, &[("k", 8), ("j", 8)], &[(0, 9)]))
        .expect("extended");
    life.restart();
    let parked = *life.group().parked.get(tp(0), b"k").expect("parked");
    assert_eq!((parked.first.0, parked.last.0, parked.records), (4, 8, 2));
    // A zombie parks nothing and commits nothing; nor does one whose offset is behind.
    let zombie = life.act(park("a", epoch - 1, &[("z", 9)], &[(0, 10)]));
    assert_eq!(zombie, Err(GroupRefusal::FencedMember));
    let behind = life.act(park("a", epoch, &[("z", 9)], &[(0, 3)]));
    assert_eq!(behind, Err(GroupRefusal::CommitBehind));
    assert_eq!((life.group().parked.len(), life.committed(0)), (2, Some(9)));
    // More was parked than redriven: the rest stays.
    assert_eq!(one_item(life.act(unpark("k", 4))).value, Some(8));
    assert_eq!(
        life.group().parked.get(tp(0), b"k").map(|p| p.first.0),
        Some(5)
    );
    assert_eq!(life.group().unparked_epoch, 0);
    assert_eq!(one_item(life.act(unpark("k", 8))).value, None);
    assert_eq!(one_item(life.act(unpark("k", 8))).value, None, "repeated");
    assert!(life.group().unparked_epoch > 0);
    assert_eq!(
        (life.group().parked.len(), life.group().parked.bytes()),
        (1, 1)
    );
}

/// A reset lets records come again that lie before those that are parked.
#[test]
fn a_key_is_parked_from_its_first_record_on_whenever_that_one_came() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    let parked = |life: &Life| {
        let parked = life.group().parked.get(tp(0), b"k").copied();
        parked.map(|p| (p.first.0, p.last.0, p.records))
    };
    for (level, first, records) in [(FeatureLevel::GROUPS, 5, 2), (FeatureLevel::PARKS, 3, 3)] {
        life.apply(ShardCommand::RaiseFeatureLevel { level });
        for offset in [5, 8, 6, 3, 3] {
            life.act(park("a", epoch, &[("k", offset)], &[]))
                .expect("parked");
        }
        life.restart();
        assert_eq!(parked(&life), Some((first, 8, records)), "{level}");
        life.act(unpark("k", 8)).expect("redriven");
        assert_eq!(parked(&life), None);
    }
}

#[test]
fn parked_keys_are_bounded_and_a_refused_park_commits_nothing() {
    let mut life = Life::new();
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    let keys: Vec<String> = (0..MAX_PARKED_KEYS).map(|n| format!("{n:05}")).collect();
    let all: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), 1)).collect();
    life.act(park("a", epoch, &all, &[(0, 2)])).expect("parked");
    let full = life.act(park("a", epoch, &[("more", 2)], &[(0, 3)]));
    assert_eq!(
        (full, life.committed(0)),
        (Err(GroupRefusal::ParkedFull), Some(2))
    );
    life.act(park("a", epoch, &[("00000", 2)], &[(0, 3)]))
        .expect("extended");
    life.act(unpark("00001", 9)).expect("redriven");
    life.act(park("a", epoch, &[("more", 3)], &[(0, 4)]))
        .expect("parked");
    let long = "x".repeat(MAX_KEY_BYTES + 1);
    let too_long = life.act(park("a", epoch, &[(&long, 4)], &[]));
    assert_eq!(too_long, Err(GroupRefusal::Limit));
    life.restart();
}

#[test]
fn groups_are_deleted_copied_and_forgotten() {
    let mut life = Life::new();
    life.commit("", 0, &[(0, 10), (1, 4)]).expect("committed");
    let copy = |name: &str, offsets: &[(u32, u64)]| GroupCommand {
        group: name.to_owned(),
        time_ms: 1_000,
        action: Some(Action::Copy(GroupCopy {
            offsets: offsets.iter().map(|(p, o)| offset(*p, *o)).collect(),
        })),
    };
    let send = |life: &mut Life, command| match life.apply(ShardCommand::Group(Box::new(command))).0
    {
        ShardReply::Group(outcome) => outcome.map(|outcome| outcome.count),
        other => panic!("{other:?}"),
    };
    assert_eq!(send(&mut life, copy("h", &[(0, 10), (1, 4)])), Ok(2));
    assert_eq!(
        send(&mut life, copy("h", &[(0, 10), (1, 4)])),
        Ok(2),
        "repeated"
    );
    assert_eq!(
        send(&mut life, copy("h", &[(0, 11)])),
        Err(GroupRefusal::Exists)
    );
    let delete = || Action::Delete(GroupDelete {});
    life.simple("a");
    assert_eq!(life.act(delete()), Err(GroupRefusal::NotEmpty));
    life.remove("a").expect("left");
    life.act(delete()).expect("deleted");
    assert_eq!(life.act(delete()), Err(GroupRefusal::UnknownGroup));
    assert!(life.state.group("h").is_some());
}

#[test]
fn groups_are_forgotten_by_the_clock_of_the_log_and_parked_keys_keep_them() {
    let mut life = Life::new();
    let sweep = |life: &mut Life, retention_ms, deleted_topics: &[u64]| {
        let deleted_topics = deleted_topics.to_vec();
        let sweep = GroupSweep {
            retention_ms,
            deleted_topics,
        };
        life.act(Action::Sweep(sweep)).expect("swept").count
    };
    life.simple("a");
    life.assign(&[("a", &[0])]).expect("assigned");
    let epoch = life.member("a").epoch;
    life.act(park("a", epoch, &[("k", 4)], &[(0, 5)]))
        .expect("parked");
    life.time += 500_000;
    assert_eq!(sweep(&mut life, 1_000, &[]), 0, "it has a member");
    life.remove("a").expect("left");
    life.time += 400_000;
    assert_eq!(sweep(&mut life, 500_000, &[]), 0, "not yet");
    life.time += 100_000;
    assert_eq!(sweep(&mut life, 500_000, &[]), 0, "a key is parked");
    life.act(unpark("k", 4)).expect("redriven");
    // A clock that jumps ahead counts ten minutes.
    life.time += 86_400_000;
    assert_eq!(sweep(&mut life, 1_200_000, &[]), 0);
    assert_eq!(sweep(&mut life, 1_100_000, &[]), 1);
    assert_eq!(life.state.groups().count(), 0);
    // Offsets of a deleted topic go; a group with nothing left goes soon.
    life.commit("", 0, &[(0, 5)]).expect("committed");
    assert_eq!(sweep(&mut life, 86_400_000, &[TOPIC]), 0);
    assert_eq!(life.committed(0), None);
    life.time += 600_000;
    assert_eq!(sweep(&mut life, 86_400_000, &[]), 1);
}
