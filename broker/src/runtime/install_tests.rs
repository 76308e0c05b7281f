//! What a pulled piece brings.

use highwater_env::{OsEnv, Workers};
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};
use highwater_proto::{LeaderEpoch, PartitionId, ShardId, TopicId};
use highwater_raft::{Position, StateMachine as _};
use highwater_segment::{SegmentStore, SegmentStoreConfig};
use highwater_shard::{AppendRequest, PartitionConfig, ShardCommand};

use crate::control::cluster::Cluster;
use crate::control::peers::{Addresses, PeerClients};
use crate::node::identity::Identity;
use crate::node::membership::Membership;
use crate::runtime::compaction::CompactionQueue;
use crate::runtime::machine::ShardContext;
use crate::runtime::pull::SnapshotSource;
use crate::runtime::tail::TailBudget;

use super::*;

/// A stored batch of three records.
pub(in crate::runtime) fn batch(base: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..3 {
        let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
        builder
            .append(TimestampMs(1), None, Some(b"value"), headers)
            .expect("appended");
    }
    let batch = RecordBatch::validate(builder.build(), usize::MAX).expect("valid");
    let stored = batch.stamp(Offset(base), LeaderEpoch(1));
    [&stored.head[..], &stored.body[..]].concat()
}

#[test]
fn the_batch_that_the_start_lies_in_is_kept() {
    let piece = Bytes::from([batch(0), batch(3), batch(6)].concat());
    let starts = BTreeMap::from([(Offset(6), TimestampMs(900))]);
    for (from, bases) in [(3, vec![3, 6]), (4, vec![3, 6]), (6, vec![6])] {
        let (batches, after) =
            stored_batches(piece.clone(), Offset(from), &starts).expect("whole batches");
        let found: Vec<u64> = batches.iter().map(|batch| batch.base_offset.0).collect();
        assert_eq!((found, after), (bases, Offset(9)), "from {from}");
        let rolled: Vec<bool> = batches.iter().map(|batch| batch.new_segment).collect();
        assert_eq!(rolled.last(), Some(&true));
        assert_eq!(rolled.iter().filter(|rolls| **rolls).count(), 1);
        // Its producer said 1; it was appended with the others of its segment.
        let appended = batches.last().map(|batch| batch.append_time);
        assert_eq!(appended, Some(TimestampMs(900)));
    }
}

/// A piece of a source that is compacted below 10.
fn piece(batches: Vec<u8>, segment: u64, next_offset: u64) -> Piece {
    Piece {
        batches: Bytes::from(batches),
        next_offset: Offset(next_offset),
        compacted: Compacted {
            generation: 7,
            upto: Offset(10),
        },
        segment: (Offset(segment), TimestampMs(500)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_has_compacted_comes_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = highwater_segment::SegmentStoreConfig::new(dir.path().join("partitions"));
    let hook = Arc::new(|fault: &highwater_segment::SegmentFault| panic!("{fault}"));
    let disk = highwater_env::OsDisk;
    let store = highwater_segment::SegmentStore::start(&disk, Workers::Threads, config, hook);
    let store = store.expect("started");
    let tp = TopicPartition::new(TopicId(1), PartitionId(0));
    let mut segments = store.shard(ShardId(1));
    segments.create(tp, 0).await.expect("created");
    let range = |from| Range {
        shard: ShardId(1),
        tp,
        from: Offset(from),
        end: Offset(13),
    };
    // The source's checkpoint is older than what it sends: it still knows segments 3 and 6.
    let starts: Starts = [0, 3, 6, 10]
        .map(|base| (Offset(base), TimestampMs(900)))
        .into();
    let mut pulling = Pulling {
        segments: &mut segments,
        starts,
        range: range(3),
        target: Where::Behind(Offset(3)),
        compacted: Compacted::default(),
        superseded: false,
    };
    // What is held may contain what a record superseded that is gone there.
    let taken = pulling.take(piece(batch(3), 0, 6)).await.expect("taken");
    assert_eq!((taken, pulling.superseded), (Taken::Enough, true));
    pulling.segments.begin_aside(tp, 0).await.expect("begun");
    (pulling.target, pulling.range, pulling.superseded) = (Where::Aside, range(0), false);
    for (sent, after) in [
        (piece(batch(0), 0, 3), 3),
        (piece(batch(6), 0, 9), 9),
        // Nothing is left of it.
        (piece(Vec::new(), 0, 10), 10),
        (piece(batch(10), 0, 13), 13),
    ] {
        let taken = pulling.take(sent).await.expect("taken");
        assert_eq!(taken, Taken::Upto(Offset(after)));
    }
    let own = segments.freeze().wait().await.expect("frozen");
    assert!(own[0].1.segments.is_empty(), "{own:?}");
    segments
        .take_aside(Vec::new(), Vec::new())
        .await
        .expect("taken");
    let manifests = segments.freeze().wait().await.expect("frozen");
    let found: Vec<_> = manifests[0]
        .1
        .segments
        .iter()
        .map(|s| (s.base_offset.0, s.next_offset.0, s.last_append_time.0))
        .collect();
    assert_eq!(found, [(0, 9, 500), (10, 13, 900)]);
    store.close().await.expect("closed");
}

/// The state machine of a shard whose other replicas nobody can reach.
fn alone(dir: &std::path::Path) -> ShardMachine<OsEnv> {
    let env = OsEnv::default();
    let config = SegmentStoreConfig::new(dir.join("partitions"));
    let hook = Arc::new(|fault: &highwater_segment::SegmentFault| panic!("{fault}"));
    let store = SegmentStore::start(env.disk(), Workers::Threads, config, hook).expect("started");
    let cluster: Arc<Cluster> = Arc::default();
    let identity = Identity {
        format_version: 1,
        node_id: 1,
        incarnation: "one".to_owned(),
        cluster_id: None,
        founders: Vec::new(),
        initiator: false,
    };
    let addresses = Addresses::new(Arc::clone(&cluster), Vec::new(), Arc::default());
    let membership = Arc::new(Membership::new(identity, cluster));
    let peers = Arc::new(PeerClients::new(
        env.clone(),
        Arc::new(addresses),
        membership,
    ));
    let context = ShardContext {
        env,
        store,
        tail: TailBudget::new(1 << 20),
        dir: dir.to_owned(),
        snapshots: SnapshotSource::new(peers),
        compactions: CompactionQueue::default(),
    };
    ShardMachine::new(ShardId(1), Arc::new(context))
}

async fn apply(machine: &mut ShardMachine<OsEnv>, index: u64, command: ShardCommand) {
    let at = Position { term: 1, index };
    machine.apply(at, command.encode()).await;
}

/// An entry that appends a batch of three records.
fn appended(tp: TopicPartition) -> ShardCommand {
    let batch = Bytes::from(batch(0));
    let append_time = TimestampMs(1_000);
    let batches = vec![AppendRequest {
        tp,
        append_time,
        batch,
    }];
    ShardCommand::Append { batches }
}

/// Offsets of the batches that readers find.
async fn read(machine: &ShardMachine<OsEnv>, tp: TopicPartition) -> Vec<u64> {
    let view = machine.views.get(tp).expect("there");
    let range = (Offset(0), view.high_watermark());
    let pieces = view.read(range, 1 << 20, Workers::Threads).await;
    let bytes = pieces
        .expect("read")
        .pieces
        .into_iter()
        .collect::<highwater_proto::Payload>();
    let batches = split_batches(bytes.to_contiguous());
    let bases = batches.map(|batch| batch.expect("whole").header().base_offset.0);
    bases.collect()
}

/// Who sends may die at any time, and the next leader may have the log that was lacking.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_stays_whole_until_all_of_a_checkpoint_has_come() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut machine = alone(dir.path());
    let place = |partition| TopicPartition::new(TopicId(1), PartitionId(partition));
    for partition in 0..2 {
        let config = PartitionConfig::default();
        let (tp, index) = (place(partition), 2 * u64::from(partition));
        apply(
            &mut machine,
            index,
            ShardCommand::CreatePartition { tp, config },
        )
        .await;
        apply(&mut machine, index + 1, appended(tp)).await;
    }
    let ours = machine.segments.freeze().wait().await.expect("frozen");
    let mut theirs = ours.clone();
    // One has gone to another shard and has come back, one is trimmed there beyond what is here.
    theirs[0].1.arrival = 7;
    theirs[1].1.log_start = Offset(9);
    for (_, manifest) in &mut theirs {
        manifest.next_offset = Offset(12);
    }
    let checkpoint = Checkpoint {
        raft_meta: Bytes::new(),
        state: machine.state.encode_snapshot(),
        partitions: theirs,
    };
    for partitions in [0..1, 1..2] {
        let part = Checkpoint {
            partitions: checkpoint.partitions[partitions].to_vec(),
            ..checkpoint.clone()
        };
        let stored = StoredCheckpoint {
            raft_meta: Bytes::new(),
            manifest: part.encode(),
        };
        let came = machine.prepare_install(NodeId(9), stored).await;
        assert!(came.is_err(), "nobody knows broker 9");
    }
    let after = machine.segments.freeze().wait().await.expect("frozen");
    assert_eq!(after, ours);
    for partition in 0..2 {
        let index = 4 + u64::from(partition);
        apply(&mut machine, index, appended(place(partition))).await;
        assert_eq!(read(&machine, place(partition)).await, [0, 3]);
    }
}
