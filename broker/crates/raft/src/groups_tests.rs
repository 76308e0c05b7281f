//! Three brokers in one process: elections, order, restarts, checkpoints, broken lanes.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Clock as _, SystemClock};
use highwater_proto::NodeId;

use crate::codec::SnapshotBody;
use crate::testing::{Cluster, GROUP, command, numbers};
use crate::types::{Vote, VoteRequest, log_id};
use crate::{
    CheckpointError, ProposeError, PurgeError, ReadError, Role, StoredCheckpoint, TransferError,
};

fn up_to(count: usize) -> Vec<usize> {
    (0..count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_keep_their_own_order() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let writers = (0..8).map(|writer| {
        let group = cluster.group(leader).clone();
        tokio::spawn(async move {
            let name = format!("w{writer}");
            let pending: Vec<_> = (0..50)
                .map(|i| group.propose_ordered(command(&name, i, 100)))
                .collect();
            for reply in pending {
                assert_eq!(reply.await.unwrap().len(), 8);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    cluster.settle().await;
    for node in cluster.brokers.keys() {
        let commands = cluster.commands(*node);
        for writer in 0..8 {
            assert_eq!(
                numbers(&commands, &format!("w{writer}")),
                up_to(50),
                "broker {node}"
            );
        }
        assert_eq!(commands, cluster.commands(leader));
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_elected_has_heard_the_clocks_of_those_who_voted() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let clocks = cluster.brokers[&leader].peers.clocks.lock().clone();
    assert!(!clocks.is_empty(), "one of two others is a majority");
    for (node, wall_ms) in clocks {
        let apart_ms = SystemClock.now_ms() - wall_ms;
        assert!((0..60_000).contains(&apart_ms), "{node}: {apart_ms}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_refuse_before_anything_is_written() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader)[0];
    let refused = cluster
        .group(follower)
        .propose(command("x", 0, 10))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProposeError::NotLeader { leader: Some(node), .. } if node == leader),
        "{refused:?}"
    );
    let refused = cluster.group(follower).read_barrier().await.unwrap_err();
    assert!(
        matches!(refused, ReadError::NotLeader { .. }),
        "{refused:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_disk_was_given_up_is_counted_no_more_over_lanes_that_are_open() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.write("before", 3, 100).await;
    let [given_up, other] = cluster.followers(leader)[..] else {
        panic!("two followers");
    };
    // The process goes on, and has not heard of it.
    for node in [leader, other] {
        let mut retired = cluster.brokers[&node].peers.retired.lock();
        retired.insert(format!("life-{given_up}"));
    }
    let propose = |number| cluster.group(leader).propose(command("alone", number, 10));
    propose(0).await.expect("the other one stores it");
    cluster.stop(other).await;
    let propose = |number| cluster.group(leader).propose(command("alone", number, 10));
    let alone = tokio::time::timeout(Duration::from_secs(3), propose(1)).await;
    assert!(!matches!(alone, Ok(Ok(_))), "no majority counts: {alone:?}");
    let applied = cluster.brokers[&given_up].state.lock().applied.clone();
    assert!(!numbers(&applied, "alone").contains(&1));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_restarts_from_its_log_and_catches_up() {
    let mut cluster = Cluster::start().await;
    cluster.write("before", 30, 1000).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader)[0];
    cluster.stop(follower).await;
    // More than the cache holds, so that the follower is served from the log.
    cluster.write("meanwhile", 200, 2000).await;
    cluster.restart(follower).await;
    cluster
        .group(follower)
        .wait_for_recovery(Duration::from_secs(20))
        .await
        .unwrap();
    cluster.settle().await;
    let commands = cluster.commands(follower);
    assert_eq!(numbers(&commands, "before"), up_to(30));
    assert_eq!(numbers(&commands, "meanwhile"), up_to(200));
    assert_eq!(cluster.brokers[&follower].state.lock().installs, 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_elect_when_the_leader_goes_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start().await;
    cluster.write("first", 20, 100).await;
    let old = cluster.leader().await;
    cluster.stop(old).await;
    cluster.write("second", 20, 100).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.restart(old).await;
    cluster.settle().await;
    for node in cluster.brokers.keys() {
        let commands = cluster.commands(*node);
        assert_eq!(numbers(&commands, "first"), up_to(20));
        assert_eq!(numbers(&commands, "second"), up_to(20));
    }
    cluster.stop_all().await;
    for node in [1, 2, 3].map(NodeId) {
        cluster.restart(node).await;
    }
    cluster.write("third", 1, 10).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster.commands(old), "second"), up_to(20));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_votes_for_who_lacks_what_it_has() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 100).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    let [candidate, voter] = cluster.followers(leader)[..] else {
        panic!("two followers");
    };
    let registry = &cluster.brokers[&voter].groups.registry;
    let inbound = registry.get(GROUP.0).expect("its replica");
    // By leave of the leader, so that nothing but the log is left to refuse for.
    let mut request = VoteRequest::new(Vote::new(1_000, candidate.0.into()), Some(log_id(1, 1)));
    request.leadership_transfer = true;
    let reply = inbound.vote(request).await.unwrap();
    assert!(!reply.vote_granted, "{reply:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whom_nobody_confirms_vouches_for_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 100).await;
    let leader = cluster.leader().await;
    for follower in cluster.followers(leader) {
        cluster.stop(follower).await;
    }
    let answer = cluster.group(leader).read_barrier().await;
    assert!(answer.is_err(), "{answer:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_where_it_is_told() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 100).await;
    let old = cluster.leader().await;
    let target = cluster.followers(old)[1];
    cluster.group(old).transfer_leader(target).await.unwrap();
    cluster
        .wait(target, |status| status.role == Role::Leader)
        .await;
    assert_eq!(cluster.leader().await, target);
    assert!(cluster.group(old).transfer_leader(target).await.is_err());
    cluster.write("b", 10, 100).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster.commands(old), "b"), up_to(10));
    cluster.stop_all().await;
}

/// Its heartbeats are rarer than its lease is long then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_has_rested_takes_what_comes_next_at_once() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 3, 100).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    for number in 0..8 {
        // Not a multiple of the beat, so that each comes at another time after a heartbeat.
        tokio::time::sleep(Duration::from_millis(770)).await;
        let began = tokio::time::Instant::now();
        let reply = group.propose(command("b", number, 100)).await;
        let took = began.elapsed();
        assert!(reply.is_ok(), "write {number}: {reply:?}");
        assert!(
            took < Duration::from_millis(400),
            "write {number}: {took:?}"
        );
    }
    assert_eq!(cluster.leader().await, leader);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_replaces_the_log_before_it() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 40, 500).await;
    cluster.settle().await;
    for node in [1, 2, 3].map(NodeId) {
        let group = cluster.group(node);
        group.checkpoint().await.unwrap();
        let upto = group.status().borrow().applied;
        group.purge(upto).await.unwrap();
        cluster
            .wait(node, |status| {
                status.purged >= upto && status.checkpointed >= upto
            })
            .await;
        // Nothing new: nothing to do.
        group.checkpoint().await.unwrap();
        let state = &cluster.brokers[&node].state;
        assert_eq!(state.lock().checkpoints, 1);
        // Nothing but where it lies: openraft, which knows of all entries, need not hear of it.
        state.lock().moved = true;
        group.checkpoint().await.unwrap();
        assert_eq!(state.lock().checkpoints, 2);
        group.checkpoint().await.unwrap();
        assert_eq!(state.lock().checkpoints, 2);
    }
    cluster.write("b", 10, 500).await;
    for node in [1, 2, 3].map(NodeId) {
        let group = cluster.group(node);
        cluster
            .wait(node, |status| status.applied > status.checkpointed)
            .await;
        let upto = group.status().borrow().applied;
        group.checkpoint().await.unwrap();
        cluster
            .wait(node, |status| status.checkpointed >= upto)
            .await;
    }
    cluster.stop_all().await;
    for node in [1, 2, 3].map(NodeId) {
        cluster.restart(node).await;
        assert_eq!(numbers(&cluster.commands(node), "a"), up_to(40));
    }
    cluster.settle().await;
    for node in [1, 2, 3].map(NodeId) {
        assert_eq!(numbers(&cluster.commands(node), "b"), up_to(10));
        assert_eq!(cluster.brokers[&node].state.lock().installs, 0);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_learn_what_every_member_has_and_it_waits_for_one_that_is_away() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 500).await;
    cluster.settle().await;
    let last = |cluster: &Cluster, node| cluster.group(node).status().borrow().last_log;
    let leader = cluster.leader().await;
    let written = last(&cluster, leader);
    cluster.wait_everywhere(written).await;
    let away = cluster.followers(leader)[0];
    cluster.stop(away).await;
    cluster.write("b", 10, 500).await;
    let leader = cluster.leader().await;
    let grown = |status: &crate::GroupStatus| status.last_log > written;
    cluster.wait(leader, grown).await;
    assert!(cluster.group(leader).everywhere() <= Some(written));
    cluster.restart(away).await;
    cluster.settle().await;
    let written = last(&cluster, leader);
    cluster.wait_everywhere(written).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_has_stopped_stores_no_checkpoint_any_more() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 500).await;
    cluster.settle().await;
    let node = cluster.followers(cluster.leader().await)[0];
    let group = cluster.group(node);
    let state = Arc::clone(&cluster.brokers[&node].state);
    state.lock().store_ms = 300;
    let making = tokio::spawn({
        let group = group.clone();
        async move { group.checkpoint().await }
    });
    while state.lock().storing == 0 {
        assert!(!making.is_finished(), "it must be under way");
        tokio::task::yield_now().await;
    }
    group.shutdown().await;
    assert_eq!(state.lock().storing, 0, "files may be removed now");
    let _answer = making.await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_log_was_purged_gets_the_checkpoint() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 500).await;
    let follower = cluster.followers(cluster.leader().await)[0];
    cluster.stop(follower).await;
    cluster.write("b", 100, 500).await;
    cluster.settle().await;
    // All of them: whoever leads later has no log to send.
    for node in cluster.brokers.keys() {
        let group = cluster.group(*node);
        group.checkpoint().await.unwrap();
        let upto = group.status().borrow().checkpointed;
        group.purge(upto).await.unwrap();
        cluster.wait(*node, |status| status.purged >= upto).await;
    }
    cluster.restart(follower).await;
    cluster.write("c", 10, 500).await;
    cluster.settle().await;
    let commands = cluster.commands(follower);
    assert_eq!(numbers(&commands, "a"), up_to(10));
    assert_eq!(numbers(&commands, "b"), up_to(100));
    assert_eq!(numbers(&commands, "c"), up_to(10));
    assert_eq!(cluster.brokers[&follower].state.lock().installs, 1);
    // What it installed is its own durable checkpoint.
    cluster.stop(follower).await;
    cluster.restart(follower).await;
    cluster.settle().await;
    assert_eq!(cluster.commands(follower), commands);
    cluster.stop_all().await;
}

/// A later leader is heard while a checkpoint is installed: openraft never hears of that checkpoint, and whoever
/// wants another one does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_a_leader_that_is_deposed_meanwhile_is_waited_for_by_nobody() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 500).await;
    let leader = cluster.leader().await;
    let [follower, candidate] = cluster.followers(leader)[..] else {
        panic!("two followers");
    };
    cluster.stop(follower).await;
    cluster.write("b", 100, 500).await;
    cluster.settle().await;
    let group = cluster.group(leader);
    group.checkpoint().await.unwrap();
    let term = group.status().borrow().term;
    let StoredCheckpoint {
        raft_meta,
        manifest,
    } = cluster.stored(leader);
    let body = SnapshotBody {
        vote: Vote::new_committed(term, leader.0.into()),
        raft_meta,
        manifest,
    };
    cluster.stop_all().await;

    cluster.restart(follower).await;
    let broker = &cluster.brokers[&follower];
    broker.state.lock().store_ms = 300;
    let inbound = broker.groups.registry.get(GROUP.0).expect("its replica");
    let installing = tokio::spawn(inbound.snapshot(leader, body));
    while broker.state.lock().storing == 0 {
        assert!(!installing.is_finished(), "it must be under way");
        tokio::task::yield_now().await;
    }
    let vote = Vote::new(1_000, candidate.0.into());
    let mut request = VoteRequest::new(vote, Some(log_id(1_000, 1_000)));
    request.leadership_transfer = true;
    let reply = inbound.vote(request).await.unwrap();
    assert!(reply.vote_granted, "{reply:?}");
    let answer = installing.await.unwrap();
    assert_eq!(broker.state.lock().installs, 1, "{answer:?}");
    let checkpointed = broker.group.status().borrow().checkpointed;
    assert_eq!(checkpointed, 0, "openraft has not heard of it");

    let made = tokio::time::timeout(Duration::from_secs(10), broker.group.checkpoint());
    made.await.expect("in time").unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_does_not_move_to_a_follower_whose_log_was_purged() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 500).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader)[0];
    cluster.stop(follower).await;
    cluster.write("b", 10, 500).await;
    cluster.settle().await;
    let group = cluster.group(leader);
    group.checkpoint().await.unwrap();
    let upto = group.status().borrow().checkpointed;
    group.purge(upto).await.unwrap();
    cluster.wait(leader, |status| status.purged >= upto).await;
    // It lacks few entries, and could not get them.
    let refused = cluster.group(leader).transfer_leader(follower).await;
    assert!(
        matches!(refused, Err(TransferError::Behind { node, .. }) if node == follower),
        "{refused:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_checkpoint_costs_a_checkpoint_and_not_the_group() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 20, 500).await;
    let follower = cluster.followers(cluster.leader().await)[0];
    cluster.stop(follower).await;
    cluster.write("b", 20, 500).await;
    cluster.settle().await;
    for (node, broker) in &cluster.brokers {
        broker.state.lock().failures = 1;
        let failed = broker.group.checkpoint().await.unwrap_err();
        assert!(matches!(failed, CheckpointError::Persist(_)), "{failed:?}");
        assert_eq!(broker.group.purge(5).await, Err(PurgeError::NoCheckpoint));
        broker.group.checkpoint().await.unwrap();
        broker.group.purge(u64::MAX).await.unwrap();
        cluster
            .wait(*node, |status| status.purged == status.checkpointed)
            .await;
    }
    cluster.restart(follower).await;
    // Fails to install it a few times before it succeeds.
    cluster.brokers[&follower].state.lock().failures = 2;
    cluster.write("c", 20, 500).await;
    cluster.settle().await;
    let state = cluster.brokers[&follower].state.lock().clone();
    assert_eq!((state.failures, state.installs), (0, 1));
    assert_eq!(numbers(&state.applied, "b"), up_to(20));
    assert_eq!(numbers(&state.applied, "c"), up_to(20));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_reconnect_after_every_connection_was_cut() {
    let mut cluster = Cluster::start().await;
    for round in 0..5 {
        let name = format!("round{round}");
        let leader = cluster.leader().await;
        let group = cluster.group(leader);
        let pending: Vec<_> = (0..50)
            .map(|i| group.propose_ordered(command(&name, i, 5000)))
            .collect();
        cluster.brokers[&leader].env.net.cut();
        for reply in pending {
            // The leader may have changed; then the outcome is unknown, which is an answer.
            let answered = tokio::time::timeout(Duration::from_secs(20), reply).await;
            let _ = answered.expect("every proposal is answered");
        }
    }
    cluster.write("after", 10, 100).await;
    cluster.settle().await;
    let first = cluster.commands(NodeId(1));
    assert_eq!(numbers(&first, "after"), up_to(10));
    assert!(
        cluster
            .brokers
            .keys()
            .all(|node| cluster.commands(*node) == first)
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut cluster = Cluster::start().await;
    cluster.write("a", 10, 100).await;
    let leader = cluster.leader().await;
    let gone = cluster.followers(leader)[0];
    let group = cluster.group(leader);
    let mut voters = group.status().borrow().voters.clone();
    voters.remove(&gone);
    group.change_voters(voters.clone()).await.unwrap();
    cluster
        .wait(leader, |status| {
            status.voters == voters && status.learners.contains(&gone)
        })
        .await;
    group.remove(gone).await.unwrap();
    cluster
        .wait(leader, |status| status.learners.is_empty())
        .await;
    group.add_learner(gone, String::new()).await.unwrap();
    voters.insert(gone);
    group.change_voters(voters.clone()).await.unwrap();
    cluster.wait(gone, |status| status.voters == voters).await;
    cluster.write("b", 10, 100).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster.commands(gone), "b"), up_to(10));
    cluster.stop_all().await;
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutants_break_their_rules() {
    use highwater_mutant::{Mutant, fails};
    fails(
        Mutant::UncleanElection,
        "groups::tests::nobody_votes_for_who_lacks_what_it_has",
    );
    fails(
        Mutant::DeposedReads,
        "groups::tests::a_leader_whom_nobody_confirms_vouches_for_nothing",
    );
}
