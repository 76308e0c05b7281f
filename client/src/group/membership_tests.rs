//! Tests of a member's bookkeeping: whatever assignments come, nothing is acknowledged too early.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::ZERO;

fn assignment(epoch: u64, partitions: &BTreeMap<u32, u64>) -> v1::Assignment {
    let partitions = partitions
        .iter()
        .map(|(&partition, &granted_epoch)| v1::AssignedPartition {
            partition,
            granted_epoch,
            committed: Some(5),
        });
    v1::Assignment {
        epoch,
        topics: vec![v1::AssignedTopic {
            topic_id: 1,
            topic: "t".into(),
            partitions: partitions.collect(),
        }],
        revoking: Vec::new(),
    }
}

fn member() -> Membership {
    let mut member = Membership::new(Duration::from_secs(45));
    member.joined(None, NOW);
    member
}

fn left(partitions: &[TopicPartition]) -> Vec<(TopicPartition, Option<u64>)> {
    partitions.iter().map(|tp| (*tp, Some(9))).collect()
}

fn take_all(member: &mut Membership) -> Vec<u32> {
    let Some(Step::Take(grants)) = member.step() else {
        return Vec::new();
    };
    let taken = grants.iter().filter(|grant| member.take(grant));
    taken.map(|grant| grant.tp.partition.0).collect()
}

#[test]
fn partitions_are_given_up_before_the_acknowledgement_and_taken_after() {
    let mut member = member();
    member.heard(Some(assignment(10, &[(0, 10), (1, 10)].into())), 0, NOW);
    assert!(member.acknowledge(), "there is nothing to give up");
    assert_eq!(take_all(&mut member), [0, 1]);
    // 1 goes, 2 comes, 0 was given back and granted anew meanwhile.
    member.heard(Some(assignment(11, &[(0, 11), (2, 11)].into())), 0, NOW);
    let Some(Step::GiveUp(surplus)) = member.step() else {
        panic!("{:?}", member.step());
    };
    assert_eq!(surplus.len(), 2);
    assert!(!member.acknowledge());
    assert_eq!(member.beat().acknowledged, 10);
    assert_eq!(member.epoch(), 11);
    assert!(
        !member.gave_up(&left(&surplus[..1])),
        "one is still worked on"
    );
    assert!(member.gave_up(&left(&surplus[1..])));
    assert_eq!(member.beat().acknowledged, 11);
    assert_eq!(take_all(&mut member), [0, 2]);
    assert_eq!(member.step(), None);
}

#[test]
fn old_answers_change_nothing_and_a_lost_session_holds_nothing() {
    let mut member = member();
    member.heard(Some(assignment(10, &[(0, 10)].into())), 3, NOW);
    take_all(&mut member);
    assert!(!member.heard(Some(assignment(9, &BTreeMap::new())), 3, NOW));
    assert!(member.heard(None, 4, NOW), "keys were unparked");
    assert_eq!(member.step(), None);
    assert!(!member.is_silent(Duration::from_secs(44)));
    assert!(member.is_silent(Duration::from_secs(45)));
    let grant = member.wanted.values().next().unwrap().clone();
    member.lost();
    assert!(!member.take(&grant), "of the session that is over");
    assert!(!member.heard(Some(assignment(20, &[(0, 20)].into())), 9, NOW));
    assert_eq!((member.step(), member.epoch()), (None, 0));
    member.joined(Some(assignment(12, &[(0, 10)].into())), NOW);
    assert_eq!(take_all(&mut member), [0], "kept by the group, new to us");
}

/// What was done under a grant is committed under an epoch that knew of it, and not at all once it is
/// known that the partition was granted anew.
#[test]
fn nothing_is_committed_over_a_grant_that_came_after_it() {
    let tp = |partition| TopicPartition::new(TopicId(1), PartitionId(partition));
    let mut member = member();
    let all: BTreeMap<u32, u64> = [(0, 10), (1, 10), (2, 10)].into();
    member.heard(Some(assignment(10, &all)), 0, NOW);
    assert_eq!(member.commit_epoch(tp(0)), None, "not taken yet");
    take_all(&mut member);
    member.heard(Some(assignment(11, &all)), 0, NOW);
    // 0 stays, 1 was reset, 2 is to be given up: it may have been reset as well.
    member.heard(Some(assignment(12, &[(0, 10), (1, 12)].into())), 0, NOW);
    let epochs = [0, 1, 2].map(|partition| member.commit_epoch(tp(partition)));
    assert_eq!(epochs, [Some(12), None, Some(11)]);
    member.gave_up(&left(&[tp(1), tp(2)]));
    assert_eq!(take_all(&mut member), [1]);
    let epochs = [0, 1, 2].map(|partition| member.commit_epoch(tp(partition)));
    assert_eq!(epochs, [Some(12), Some(12), None]);
    member.lost();
    assert_eq!(member.commit_epoch(tp(0)), None);
}

/// A revocation that is taken back while the member was giving up: the assignment was made before
/// its last commit.
#[test]
fn what_is_taken_up_again_begins_where_it_was_left() {
    let both: BTreeMap<u32, u64> = [(0, 10), (1, 10)].into();
    for early in [true, false] {
        let mut member = member();
        member.heard(Some(assignment(10, &both)), 0, NOW);
        take_all(&mut member);
        member.heard(Some(assignment(11, &[(0, 10)].into())), 0, NOW);
        let Some(Step::GiveUp(surplus)) = member.step() else {
            panic!("{:?}", member.step());
        };
        if early {
            member.heard(Some(assignment(12, &both)), 0, NOW);
        }
        member.gave_up(&left(&surplus));
        if !early {
            member.heard(Some(assignment(12, &both)), 0, NOW);
        }
        let Some(Step::Take(again)) = member.step() else {
            panic!("{:?}", member.step());
        };
        assert_eq!(again[0].committed, Some(9), "{early}");
        // Granted anew, after somebody else may have had it: what the group says counts.
        member.heard(Some(assignment(13, &[(0, 10), (1, 13)].into())), 0, NOW);
        let Some(Step::Take(anew)) = member.step() else {
            panic!("{:?}", member.step());
        };
        assert_eq!(anew[0].committed, Some(5), "{early}");
    }
}

proptest! {
    /// Random assignments, steps taken one by one, sessions lost: an acknowledged assignment names
    /// everything that is held, and in the end exactly the newest one is held.
    #[test]
    fn nothing_is_acknowledged_that_is_not_in_force(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_map(0_u32..6, 0_u64..3, 0..6), 0_u8..6, 0_usize..4), 1..40)
    ) {
        let mut member = member();
        let mut history: BTreeMap<u64, BTreeMap<u32, u64>> = BTreeMap::new();
        let mut epoch = 100;
        for (partitions, what, steps) in rounds {
            if what == 0 {
                member.lost();
                prop_assert!(member.held.is_empty());
                member.joined(None, NOW);
            } else {
                epoch += 1;
                history.insert(epoch, partitions.clone());
                member.heard(Some(assignment(epoch, &partitions)), 0, NOW);
                member.acknowledge();
            }
            for _ in 0..steps {
                match member.step() {
                    Some(Step::GiveUp(surplus)) => { member.gave_up(&left(&surplus[..1])); }
                    Some(Step::Take(grants)) => { member.take(&grants[0]); }
                    None => break,
                }
                let in_force = member.beat().acknowledged;
                if let Some(named) = history.get(&in_force) {
                    for (tp, granted) in &member.held {
                        // Taken for a newer assignment, or named by this one.
                        let newer = member.wanted.get(tp).is_some_and(|g| g.epoch == *granted);
                        prop_assert!(newer || named.get(&tp.partition.0) == Some(granted));
                    }
                }
                prop_assert!(in_force <= member.beat().received);
            }
        }
        while let Some(step) = member.step() {
            match step {
                Step::GiveUp(surplus) => { member.gave_up(&left(&surplus)); }
                Step::Take(grants) => grants.iter().for_each(|grant| { member.take(grant); }),
            }
        }
        let wanted: BTreeMap<_, _> = member.wanted.iter().map(|(tp, grant)| (*tp, grant.epoch)).collect();
        prop_assert_eq!(&member.held, &wanted);
        if member.received > 0 {
            member.acknowledge();
            prop_assert_eq!(member.beat().acknowledged, member.beat().received);
        }
    }
}
