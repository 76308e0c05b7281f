//! What may be proposed to a shard on another's behalf.

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
