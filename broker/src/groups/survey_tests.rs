//! Lag of empty and trimmed partitions; what stands still, and for how long.

use highwater_proto::{LeaderEpoch, PartitionId, TimestampMs, TopicId};
use highwater_shard::groups::{Committed, Holding, Member};

use super::*;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(1), PartitionId(partition))
}

#[test]
fn lag_counts_what_can_still_be_read() {
    let lag = |committed: Option<u64>, start, end| {
        lag_of(committed.map(Offset), Offset(start), Offset(end))
    };
    assert_eq!(lag(Some(10), 0, 25), Some(15));
    assert_eq!(lag(Some(25), 0, 25), Some(0));
    assert_eq!(lag(Some(10), 20, 25), Some(5), "trimmed past the commit");
    assert_eq!(lag(Some(10), 25, 25), Some(0), "trimmed to its end");
    assert_eq!(
        lag(Some(30), 0, 25),
        Some(0),
        "asked a replica that is behind"
    );
    assert_eq!(lag(None, 0, 0), Some(0), "empty");
    assert_eq!(lag(None, 7, 7), Some(0), "emptied");
    assert_eq!(lag(None, 0, 3), None, "nothing is known");
}

fn group(offset: u64, held: &[u32]) -> Group {
    let mut member = Member::default();
    for partition in [0, 1] {
        member.target.insert(tp(partition));
    }
    for partition in held {
        let holding = Holding {
            granted: 1,
            revoking: 0,
        };
        member.held.insert(tp(*partition), holding);
    }
    let committed = Committed {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(0),
        metadata: "".into(),
        epoch: 1,
        time: TimestampMs(0),
    };
    let mut group = Group::default();
    group.members.insert("m".into(), Arc::new(member));
    Arc::make_mut(&mut group.offsets).insert(tp(0), committed);
    group
}

fn seen(end: u64) -> BTreeMap<TopicPartition, PartitionLag> {
    let one = |partition, committed: Option<u64>| {
        let lag = PartitionLag {
            log_start: Offset(0),
            log_end: Some(Offset(end)),
            lag: lag_of(committed.map(Offset), Offset(0), Offset(end)),
            lag_seconds: None,
        };
        (tp(partition), lag)
    };
    BTreeMap::from([one(0, Some(5)), one(1, Some(end))])
}

#[test]
fn a_partition_without_an_owner_shows_after_a_session_timeout() {
    let mut survey = Survey::default();
    let (name, start) = ("g".into(), Instant::now());
    let lacking = group(5, &[0]);
    survey.observe((&name, &lacking), seen(5), start);
    let later = start + Duration::from_secs(46);
    let lag = survey.observe((&name, &lacking), seen(5), later);
    assert_eq!(
        lag.unowned,
        BTreeMap::from([(tp(1), Duration::from_secs(46))])
    );
    // The member says nothing of its session timeout: none is longer than zero.
    assert_eq!(lag.long_unowned(&lacking), 1);
    assert_eq!(lag.problems(&lacking).len(), 1);
    let owned = group(5, &[0, 1]);
    let lag = survey.observe((&name, &owned), seen(5), later);
    assert_eq!((lag.unowned.len(), lag.problems(&owned).len()), (0, 0));
}

#[test]
fn a_member_that_commits_nothing_while_there_is_a_lag_is_stalled() {
    let mut survey = Survey::default();
    let (name, start) = ("g".into(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let group = |offset| group(offset, &[0, 1]);
    survey.observe((&name, &group(5)), seen(5), start);
    // An hour without anything to read is no stall.
    survey.observe((&name, &group(5)), seen(5), at(3600));
    let lag = survey.observe((&name, &group(5)), seen(9), at(3700));
    assert_eq!(lag.stalled[&tp(0)], Duration::from_secs(100));
    assert_eq!(lag.stalled_members(&group(5)).len(), 1);
    // A commit is progress, even if a lag is left.
    let lag = survey.observe((&name, &group(6)), seen(9), at(3701));
    assert_eq!(lag.stalled.get(&tp(0)), None);
    assert_eq!(lag.stalled_members(&group(6)).len(), 0);
}
