//! What may be proposed to a shard on another's behalf, and who should lead.

use highwater_proto::TopicId;
use highwater_shard::FeatureLevel;

use super::*;

#[test]
fn only_commands_that_every_replica_can_apply_are_taken_from_outside() {
    let tp = TopicPartition::new(TopicId(1), PartitionId(0));
    let delete = ShardCommand::DeletePartition { tp }.encode();
    check_forwarded(&delete.to_contiguous()).expect("a command of this release");

    let level = FeatureLevel(FeatureLevel::LATEST.0 + 1);
    let newer = ShardCommand::RaiseFeatureLevel { level }.encode();
    check_forwarded(&newer.to_contiguous()).expect_err("no replica here could apply it");
    check_forwarded(&Bytes::from_static(b"\xffrubbish")).expect_err("not a command");

    let batches = Vec::new();
    let append = ShardCommand::Append { batches }.encode();
    check_forwarded(&append.to_contiguous()).expect_err("batches come in through the front");
}

#[test]
fn leaders_leave_a_full_disk_and_come_back_when_there_is_room() {
    let [one, two, three] = [1, 2, 3].map(NodeId);
    let replicas = [one, two, three];
    let better = |leader: NodeId, full: &[NodeId], down: &[NodeId]| {
        let full: BTreeSet<NodeId> = full.iter().copied().collect();
        let able = |node: &NodeId| !full.contains(node) && !down.contains(node);
        super::better(Some(one), &replicas, leader, &full, able)
    };
    assert_eq!(better(one, &[], &[]), None);
    assert_eq!(better(one, &[one], &[]), Some(two));
    assert_eq!(better(one, &[one], &[two]), Some(three));
    assert_eq!(better(two, &[one], &[]), None, "it stays where it can");
    assert_eq!(better(two, &[], &[]), Some(one));
    assert_eq!(better(two, &[two], &[one]), Some(three));
    assert_eq!(
        better(one, &[one, two, three], &[]),
        None,
        "nobody is better"
    );
}
