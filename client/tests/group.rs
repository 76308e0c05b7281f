//! Members of a group against a fake coordinator: what is committed, in which order records are
//! handled, what happens to those that fail.

#[path = "group/anew.rs"]
mod anew;
#[path = "group/budget.rs"]
mod budget;
#[path = "group/chunks.rs"]
mod chunks;
mod fake;
#[path = "group/given_up.rs"]
mod given_up;
#[path = "group/hooks.rs"]
mod hooks;
#[path = "group/keys.rs"]
mod keys;
#[path = "group/letters.rs"]
mod letters_of;
#[path = "group/lost_answers.rs"]
mod lost_answers;
#[path = "group/resets.rs"]
mod resets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fake::FakeCluster;
use futures_util::StreamExt;
use highwater_client::group::redrive::Selection;
use highwater_client::group::{
    CommitMode, DeadLetter, GroupBuilder, GroupRecord, GroupStart, GroupWorker, HandlerError,
    NamedPartition, OnFailure, RetryPolicy, RevokeReason,
};
use highwater_client::resilience::Backoff;
use highwater_client::{Client, ProducerRecord};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let done = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, done).await;
    assert!(done.is_ok(), "never: {what}");
}

/// `values` as records with keys `k0`, `k1`, ...
async fn produce(client: &Client, keys: u32, values: std::ops::Range<u32>) {
    let producer = client.producer().build();
    for value in values {
        let key = format!("k{}", value % keys);
        let record = ProducerRecord::to("t").key(key).value(value.to_string());
        producer.send(record).await.unwrap();
    }
}

fn value(record: &GroupRecord) -> u32 {
    let text = record.value.as_deref().unwrap_or_default();
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

fn member(client: &Client) -> GroupBuilder {
    client
        .group("g")
        .topic("t")
        .commit_interval(Duration::from_millis(20))
        .retry(quick())
}

fn quick() -> RetryPolicy {
    RetryPolicy::default().backoff(Backoff {
        first: Duration::from_millis(1),
        most: Duration::from_millis(10),
    })
}

/// What handlers did, in order.
type Seen = Arc<Mutex<Vec<(String, u32)>>>;

fn note(seen: &Seen, record: &GroupRecord) {
    let key = String::from_utf8(record.key.clone().unwrap_or_default().to_vec()).unwrap();
    seen.lock().push((key, value(record)));
}

fn noting(builder: GroupBuilder, seen: &Seen) -> GroupWorker {
    let seen = Arc::clone(seen);
    let worker = builder.run(move |record| {
        note(&seen, &record);
        async { Ok(()) }
    });
    worker.unwrap()
}

fn committed(cluster: &FakeCluster) -> u64 {
    let state = cluster.state.lock();
    let id = state.topics["t"].id;
    let offsets = state.groups.get("g").into_iter().flat_map(|g| &g.offsets);
    offsets.filter(|((t, _), _)| *t == id).map(|(_, o)| o).sum()
}

fn check_order(seen: &[(String, u32)]) {
    let mut last: BTreeMap<&str, u32> = BTreeMap::new();
    for (key, value) in seen {
        if let Some(before) = last.insert(key, *value) {
            assert!(before < *value, "key {key}: {value} after {before}");
        }
    }
}

#[tokio::test]
async fn keys_run_side_by_side_each_in_order_and_a_stop_commits_what_is_finished() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 3);
    let client = cluster.client().await;
    produce(&client, 8, 0..200).await;
    let seen = Seen::default();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let worker = {
        let (seen, running, most) = (Arc::clone(&seen), Arc::clone(&running), Arc::clone(&most));
        member(&client).parallelism(4).run(move |record| {
            let (seen, running, most) =
                (Arc::clone(&seen), Arc::clone(&running), Arc::clone(&most));
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                note(&seen, &record);
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    eventually("all handled", || seen.lock().len() == 200).await;
    worker.stop().await.unwrap();
    assert_eq!(committed(&cluster), 200);
    check_order(&seen.lock());
    assert_eq!(
        most.load(Ordering::SeqCst),
        4,
        "as many at a time as allowed"
    );
    let state = cluster.state.lock();
    assert!(state.groups["g"].members.is_empty() && state.groups["g"].left == 1);
    assert!(state.groups["g"].commit_calls < 150, "commits are gathered");
}

#[tokio::test]
async fn a_commit_never_passes_a_record_at_work_and_a_dead_member_loses_nothing() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 10, 0..10).await;
    let seen = Seen::default();
    let gate = Arc::new(Semaphore::new(0));
    let worker = {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        member(&client).run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                if value(&record) == 4 {
                    gate.acquire().await.unwrap().forget();
                }
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    eventually("nine handled", || seen.lock().len() == 9).await;
    eventually("the prefix committed", || committed(&cluster) == 4).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(committed(&cluster), 4, "passed the record at work");
    drop(worker); // as a crash would
    let name = cluster.state.lock().groups["g"]
        .members
        .keys()
        .next()
        .cloned();
    cluster.state.lock().expel("g", &name.unwrap());
    let again = Seen::default();
    let worker = noting(member(&client), &again);
    eventually("handled again", || again.lock().len() == 6).await;
    worker.stop().await.unwrap();
    assert_eq!(committed(&cluster), 10);
    let again: BTreeSet<u32> = again.lock().iter().map(|(_, value)| *value).collect();
    assert_eq!(again, (4..10).collect());
}

#[tokio::test]
async fn two_members_become_three_and_two_again_without_gap_or_disorder() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 6);
    let client = cluster.client().await;
    let seen = Seen::default();
    let first = noting(member(&client), &seen);
    let second = noting(member(&client), &seen);
    let producing = tokio::spawn({
        let client = client.clone();
        async move { produce(&client, 20, 0..600).await }
    });
    eventually("under way", || seen.lock().len() > 50).await;
    let third = noting(member(&client), &seen);
    eventually("three share", || {
        [&first, &second, &third]
            .iter()
            .all(|w| w.assignment().len() == 2)
    })
    .await;
    first.stop().await.unwrap();
    eventually("two share", || {
        [&second, &third].iter().all(|w| w.assignment().len() == 3)
    })
    .await;
    producing.await.unwrap();
    eventually("all committed", || committed(&cluster) == 600).await;
    let seen = seen.lock().clone();
    check_order(&seen);
    assert_eq!(seen.len(), 600, "graceful moves repeat nothing");
    assert_eq!(cluster.state.lock().groups["g"].refused, 0);
}

#[tokio::test]
async fn a_member_that_was_expelled_commits_nothing_and_starts_anew() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 1, 0..5).await;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let lost: Arc<Mutex<Vec<RevokeReason>>> = Arc::default();
    let sleeper = {
        let (seen, gate, lost) = (Arc::clone(&seen), Arc::clone(&gate), Arc::clone(&lost));
        let revoked = move |_: Vec<NamedPartition>, reason| {
            lost.lock().push(reason);
            async {}
        };
        member(&client).on_revoked(revoked).run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let sleeper = sleeper.unwrap();
    gate.add_permits(2);
    eventually("two handled", || committed(&cluster) == 2).await;
    // A record is at work; the group thinks the member dead and gives its partition to another.
    let name = cluster.state.lock().groups["g"]
        .members
        .keys()
        .next()
        .cloned();
    let others = Seen::default();
    let heir = noting(member(&client), &others);
    eventually("the heir has joined", || {
        cluster.state.lock().groups["g"].members.len() == 2
    })
    .await;
    cluster.state.lock().expel("g", &name.unwrap());
    cluster.announce();
    eventually("the heir went on", || committed(&cluster) == 5).await;
    eventually("it is told", || lost.lock().contains(&RevokeReason::Lost)).await;
    // Now the old handler finishes: its result counts for nothing, and nothing goes back.
    gate.add_permits(1);
    eventually("it finished", || seen.lock().len() == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(committed(&cluster), 5);
    let handled: Vec<u32> = others.lock().iter().map(|(_, value)| *value).collect();
    assert_eq!(handled, [2, 3, 4], "from the last commit on");
    heir.stop().await.unwrap();
    produce(&client, 1, 5..7).await;
    gate.add_permits(10);
    eventually("it works again", || committed(&cluster) == 7).await;
    sleeper.stop().await.unwrap();
}

#[tokio::test]
async fn an_unknown_commit_is_repeated_and_a_new_group_begins_where_it_is_told() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 1, 0..5).await;
    let seen = Seen::default();
    let worker = noting(member(&client).start_at(GroupStart::Latest), &seen);
    eventually("the start is committed", || committed(&cluster) == 5).await;
    cluster
        .state
        .lock()
        .groups
        .get_mut("g")
        .unwrap()
        .unknown_commits = 2;
    produce(&client, 1, 5..8).await;
    eventually("committed", || committed(&cluster) == 8).await;
    worker.stop().await.unwrap();
    assert_eq!(
        seen.lock().iter().map(|(_, v)| *v).collect::<Vec<_>>(),
        [5, 6, 7]
    );
}

/// Fails records that are in `bad`, and notes the others.
fn failing(builder: GroupBuilder, seen: &Seen, bad: &Arc<Mutex<BTreeSet<u32>>>) -> GroupWorker {
    let (seen, bad) = (Arc::clone(seen), Arc::clone(bad));
    let worker = builder.run(move |record| {
        let (seen, bad) = (Arc::clone(&seen), Arc::clone(&bad));
        async move {
            if bad.lock().contains(&value(&record)) {
                return Err(HandlerError::retryable("poison"));
            }
            note(&seen, &record);
            Ok(())
        }
    });
    worker.unwrap()
}

async fn letters(client: &Client, all: bool) -> Vec<(u32, u32)> {
    let letters = client.groups().dead_letters("g", all).await.unwrap();
    let number = |letter: &DeadLetter, record: &highwater_client::ConsumedRecord| {
        let text = record.value.as_deref().unwrap_or_default();
        assert_eq!((&*letter.topic, &*letter.group), ("t", "g"));
        (
            std::str::from_utf8(text).unwrap().parse().unwrap(),
            letter.attempts,
        )
    };
    letters
        .iter()
        .map(|l| number(&l.letter, &l.record))
        .collect()
}

#[tokio::test]
async fn poison_parks_its_key_alone_and_a_redrive_brings_it_back_in_order() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    produce(&client, 4, 0..40).await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([9]))));
    let worker = failing(member(&client), &seen, &bad);
    eventually("all committed", || committed(&cluster) == 40).await;
    // 9 has key k1: it and every later record of k1 is set aside, nothing else.
    let parked: Vec<u32> = (0..40).filter(|v| v % 4 == 1 && *v >= 9).collect();
    let expected: Vec<(u32, u32)> = parked
        .iter()
        .map(|v| (*v, if *v == 9 { 3 } else { 0 }))
        .collect();
    assert_eq!(letters(&client, false).await, expected);
    let handled: BTreeSet<u32> = seen.lock().iter().map(|(_, value)| *value).collect();
    assert!(handled.is_disjoint(&parked.iter().copied().collect()));
    assert_eq!(handled.len() + parked.len(), 40);
    // The key stays parked over a restart.
    worker.stop().await.unwrap();
    let worker = failing(member(&client), &seen, &bad);
    produce(&client, 4, 40..48).await;
    eventually("all committed", || committed(&cluster) == 48).await;
    assert_eq!(letters(&client, false).await.len(), parked.len() + 2);
    // Still bad: a redrive fails at 9 and nothing is lost or handled out of order.
    let redriven = client
        .groups()
        .redrive("g", &Selection::default(), |_, _| {})
        .await
        .unwrap();
    assert_eq!(
        (redriven.records, redriven.keys, redriven.failed_keys),
        (0, 0, 1)
    );
    assert_eq!(letters(&client, false).await.len(), parked.len() + 2);
    bad.lock().clear();
    let copied = Arc::new(AtomicU32::new(0));
    let progress = |_, handled| copied.store(handled as u32, Ordering::SeqCst);
    let redriven = client
        .groups()
        .redrive("g", &Selection::default(), progress)
        .await
        .unwrap();
    assert_eq!((redriven.keys, redriven.failed_keys), (1, 0));
    assert_eq!(redriven.records, parked.len() as u64 + 2);
    assert_eq!(letters(&client, false).await, []);
    assert_eq!(
        letters(&client, true).await.len(),
        parked.len() + 2,
        "each once"
    );
    // The key flows again.
    produce(&client, 4, 48..52).await;
    eventually("all committed", || committed(&cluster) == 52).await;
    worker.stop().await.unwrap();
    let seen = seen.lock().clone();
    check_order(&seen);
    assert_eq!(seen.len(), 52, "each record handled once");
}

#[tokio::test]
async fn records_that_come_during_a_redrive_are_redriven_behind() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 2, 0..10).await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([1]))));
    let worker = failing(member(&client), &seen, &bad);
    eventually("all committed", || committed(&cluster) == 10).await;
    bad.lock().clear();
    let producing = tokio::spawn({
        let client = client.clone();
        async move { produce(&client, 2, 10..200).await }
    });
    let redriven = client
        .groups()
        .redrive("g", &Selection::default(), |_, _| {})
        .await
        .unwrap();
    assert!(redriven.records >= 5 && redriven.keys == 1);
    producing.await.unwrap();
    eventually("all committed", || committed(&cluster) == 200).await;
    // Records that were on their way when the key unparked may have parked it again.
    client
        .groups()
        .redrive("g", &Selection::default(), |_, _| {})
        .await
        .unwrap();
    worker.stop().await.unwrap();
    let seen = seen.lock().clone();
    check_order(&seen);
    assert_eq!(seen.len(), 200);
}

#[tokio::test]
async fn when_no_more_can_be_parked_the_partition_stands_still() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([2]))));
    let worker = failing(member(&client), &seen, &bad);
    eventually("it has joined", || worker.assignment().len() == 1).await;
    cluster.state.lock().groups.get_mut("g").unwrap().full = true;
    produce(&client, 10, 0..3).await;
    eventually("parking was refused", || {
        cluster.state.lock().groups["g"].refused > 2
    })
    .await;
    assert!(
        committed(&cluster) <= 2,
        "passed a record whose key is not parked"
    );
    cluster.state.lock().groups.get_mut("g").unwrap().full = false;
    produce(&client, 10, 3..10).await;
    eventually("it goes on", || committed(&cluster) == 10).await;
    worker.stop().await.unwrap();
    assert_eq!(seen.lock().len(), 9);
}

#[tokio::test]
async fn other_policies_skip_or_stand_still() {
    for policy in [OnFailure::Skip, OnFailure::Block] {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 1);
        let client = cluster.client().await;
        produce(&client, 4, 0..12).await;
        let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([5]))));
        let worker = failing(member(&client).retry(quick().then(policy)), &seen, &bad);
        if policy == OnFailure::Block {
            eventually("the prefix", || committed(&cluster) == 5).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(committed(&cluster), 5);
            bad.lock().clear();
        }
        eventually("all committed", || committed(&cluster) == 12).await;
        worker.stop().await.unwrap();
        let expected = if policy == OnFailure::Skip { 11 } else { 12 };
        assert_eq!(seen.lock().len(), expected);
        check_order(&seen.lock());
        assert!(!cluster.state.lock().topics.contains_key("g.dlq"));
    }
}

#[tokio::test]
async fn a_stream_commits_what_it_is_told() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 1, 0..10).await;
    let mut auto = member(&client).stream().unwrap();
    for _ in 0..4 {
        auto.next().await.unwrap().unwrap();
    }
    eventually("three are finished", || committed(&cluster) == 3).await;
    drop(auto); // the fourth was at hand: it comes again
    let name = cluster.state.lock().groups["g"]
        .members
        .keys()
        .next()
        .cloned();
    cluster.state.lock().expel("g", &name.unwrap());
    let mut stream = member(&client)
        .commit_mode(CommitMode::Explicit)
        .stream()
        .unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(stream.next().await.unwrap().unwrap());
    }
    assert_eq!(open.iter().map(value).collect::<Vec<_>>(), [3, 4, 5, 6]);
    open.remove(1).done();
    stream.commit().await.unwrap();
    assert_eq!(committed(&cluster), 3, "3 is not done");
    open.remove(0).done();
    stream.commit().await.unwrap();
    assert_eq!(committed(&cluster), 5);
    drop(open.remove(0)); // dropped, not done
    open.remove(0).done();
    stream.leave().await.unwrap();
    assert_eq!(committed(&cluster), 5);
}

#[tokio::test]
async fn a_paused_member_hands_out_nothing_and_stays_a_member() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    let seen = Seen::default();
    let worker = noting(
        member(&client).session_timeout(Duration::from_secs(2)),
        &seen,
    );
    eventually("assigned", || worker.assignment().len() == 2).await;
    worker.pause_all();
    produce(&client, 8, 0..20).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.lock().len(), 0);
    worker.resume("t", 0);
    worker.resume_all();
    eventually("all committed", || committed(&cluster) == 20).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let producer = client.producer().build();
    for value in 0..40 {
        let record = ProducerRecord::to("t")
            .key(format!("k{value}"))
            .value(vec![b'0'; 10_000]);
        producer.send(record).await.unwrap();
    }
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicU32::new(0));
    let worker = {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        let builder = member(&client).parallelism(100).in_flight_bytes(100_000);
        builder.run(move |_record| {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        })
    };
    eventually("some begun", || begun.load(Ordering::SeqCst) == 10).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        begun.load(Ordering::SeqCst),
        10,
        "100,000 bytes and one record"
    );
    gate.add_permits(40);
    eventually("all committed", || committed(&cluster) == 40).await;
    worker.unwrap().stop().await.unwrap();
}
