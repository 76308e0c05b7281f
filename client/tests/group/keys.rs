//! Which records wait of a key, or of those without one, whatever ends in which order and whoever dies.

use highwater_proto::TopicId;

use super::*;

const NONE: [u32; 0] = [];

/// Records without a key, into one partition.
async fn keyless(client: &Client, partition: u32, values: std::ops::Range<u32>) {
    let producer = client.producer().build();
    for value in values {
        let record = ProducerRecord::to("t").partition(partition);
        producer
            .send(record.value(value.to_string()))
            .await
            .unwrap();
    }
}

async fn redrive(client: &Client) -> (u64, u64, u64) {
    let admin = client.groups();
    let done = admin.redrive("g", &Selection::default(), |_, _| {}).await;
    let done = done.unwrap();
    (done.records, done.keys, done.failed_keys)
}

async fn waiting(client: &Client) -> Vec<u32> {
    letters(client, false)
        .await
        .iter()
        .map(|(v, _)| *v)
        .collect()
}

fn values(seen: &Seen) -> Vec<u32> {
    let mut values: Vec<u32> = seen.lock().iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    values
}

/// Letters in a topic.
fn stored(cluster: &FakeCluster, topic: &str) -> u64 {
    let state = cluster.state.lock();
    let topic = state.topics.get(topic);
    topic.map_or(0, |topic| topic.partitions.iter().map(|p| p.end()).sum())
}

#[tokio::test]
async fn a_record_without_a_key_that_fails_later_than_one_behind_it_waits_too() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    let (seen, bad) = (
        Seen::default(),
        Arc::new(Mutex::new(BTreeSet::from([2, 5]))),
    );
    let gate = Arc::new(Semaphore::new(0));
    let worker = {
        let (seen, bad, gate) = (Arc::clone(&seen), Arc::clone(&bad), Arc::clone(&gate));
        member(&client).run(move |record| {
            let (seen, bad, gate) = (Arc::clone(&seen), Arc::clone(&bad), Arc::clone(&gate));
            async move {
                if value(&record) == 2 && bad.lock().contains(&2) {
                    gate.acquire().await.unwrap().forget();
                }
                if bad.lock().contains(&value(&record)) {
                    return Err(HandlerError::permanent("poison"));
                }
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    keyless(&client, 0, 0..8).await;
    eventually("5 is in the queue", || stored(&cluster, "g.dlq") == 1).await;
    // Commits go on, and with them whatever is parked early.
    for value in 8..12 {
        let before = committed(&cluster);
        keyless(&client, 1, value..value + 1).await;
        eventually("another commit", || committed(&cluster) > before).await;
    }
    gate.add_permits(1);
    eventually("all committed", || committed(&cluster) == 12).await;
    assert_eq!(waiting(&client).await, [2, 5]);
    bad.lock().clear();
    assert_eq!(redrive(&client).await, (2, 1, 0));
    assert_eq!(waiting(&client).await, NONE);
    worker.stop().await.unwrap();
    assert_eq!(values(&seen), (0..12).collect::<Vec<_>>(), "each once");
}

/// One more fails while those before and behind it are redriven: it is not unparked with them.
#[tokio::test]
async fn a_record_without_a_key_that_fails_during_a_redrive_is_redriven_next() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let bad = Arc::new(Mutex::new(BTreeSet::from([1, 5, 9])));
    let (seen, begun) = (Seen::default(), Arc::new(AtomicU32::new(0)));
    let (late, redriven) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let worker = {
        let (seen, bad, begun) = (Arc::clone(&seen), Arc::clone(&bad), Arc::clone(&begun));
        let (late, redriven) = (Arc::clone(&late), Arc::clone(&redriven));
        member(&client).run(move |record| {
            let (seen, bad, begun) = (Arc::clone(&seen), Arc::clone(&bad), Arc::clone(&begun));
            let (late, redriven) = (Arc::clone(&late), Arc::clone(&redriven));
            async move {
                if record.redriven() {
                    begun.fetch_add(1, Ordering::SeqCst);
                    redriven.acquire().await?.forget();
                } else if value(&record) == 5 {
                    late.acquire().await?.forget();
                }
                if bad.lock().contains(&value(&record)) && !record.redriven() {
                    return Err(HandlerError::permanent("poison"));
                }
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    keyless(&client, 0, 0..10).await;
    eventually("1 and 9 are in the queue", || {
        stored(&cluster, "g.dlq") == 2
    })
    .await;
    eventually("1 is parked", || {
        !cluster.state.lock().groups["g"].parked.is_empty()
    })
    .await;
    let redriving = tokio::spawn({
        let client = client.clone();
        async move { redrive(&client).await }
    });
    eventually("1 is handled", || begun.load(Ordering::SeqCst) > 0).await;
    late.add_permits(1);
    eventually("all committed", || committed(&cluster) == 10).await;
    redriven.add_permits(3);
    assert_eq!(redriving.await.unwrap(), (3, 1, 0));
    assert_eq!(waiting(&client).await, NONE);
    worker.stop().await.unwrap();
    assert_eq!(values(&seen), (0..10).collect::<Vec<_>>(), "each once");
}

/// One of several records without a key fails again and again, and waits until it does not.
async fn one_fails_again(partitions: u32) {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    // Copies, and letters, may lie in several partitions.
    for topic in ["g.dlq", "g.redrive"] {
        cluster.topic(topic, partitions);
    }
    let client = cluster.client().await;
    let (seen, bad) = (
        Seen::default(),
        Arc::new(Mutex::new(BTreeSet::from([5, 6, 7]))),
    );
    let worker = failing(member(&client), &seen, &bad);
    keyless(&client, 0, 0..9).await;
    eventually("all committed", || committed(&cluster) == 9).await;
    assert_eq!(waiting(&client).await, [5, 6, 7]);
    *bad.lock() = BTreeSet::from([6]);
    assert_eq!(redrive(&client).await, (2, 0, 1));
    for _ in 0..3 {
        assert_eq!(waiting(&client).await, [6]);
        assert_eq!(redrive(&client).await, (0, 0, 1));
    }
    // More come behind it meanwhile.
    bad.lock().extend([10, 11]);
    keyless(&client, 0, 9..13).await;
    eventually("all committed", || committed(&cluster) == 13).await;
    assert_eq!(waiting(&client).await, [6, 10, 11]);
    bad.lock().remove(&10);
    assert_eq!(redrive(&client).await, (1, 0, 1));
    assert_eq!(waiting(&client).await, [6, 11]);
    bad.lock().clear();
    assert_eq!(redrive(&client).await, (2, 1, 0));
    assert_eq!(waiting(&client).await, NONE);
    worker.stop().await.unwrap();
    assert_eq!(values(&seen), (0..13).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn a_record_without_a_key_waits_until_it_does_not_fail_again() {
    one_fails_again(1).await;
}

#[tokio::test]
async fn and_so_where_its_copies_lie_in_several_partitions() {
    one_fails_again(3).await;
}

/// A record's letters lie in two partitions of the queue: which of them came last is not known, and
/// neither is taken for the end of the other.
#[tokio::test]
async fn letters_of_one_record_in_two_partitions_of_the_queue_are_both_looked_at() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    cluster.topic("g.dlq", 3);
    let client = cluster.client().await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new((0..24).collect())));
    let worker = failing(member(&client), &seen, &bad);
    let all: Vec<u32> = (0..24).collect();
    // Keys are spread anew when a topic is given more partitions.
    produce(&client, 24, 0..24).await;
    eventually("all committed", || committed(&cluster) == 24).await;
    cluster.add_partitions("g.dlq", 2);
    let id = TopicId(cluster.state.lock().topics["g.dlq"].id);
    eventually("the client has heard of it", || {
        let view = client.view();
        view.topic(id)
            .is_some_and(|topic| topic.partition_count() == 5)
    })
    .await;
    for _ in 0..2 {
        assert_eq!(redrive(&client).await, (0, 0, 24));
        assert_eq!(waiting(&client).await, all);
    }
    // All are handled, and not unparked: the next redrive knows.
    bad.lock().clear();
    let unparks = |refused| {
        let mut state = cluster.state.lock();
        state.groups.get_mut("g").unwrap().refused_unparks = refused;
    };
    unparks(1);
    let admin = client.groups();
    let refused = admin.redrive("g", &Selection::default(), |_, _| {}).await;
    refused.unwrap_err();
    assert_eq!(redrive(&client).await, (0, 24, 0));
    assert_eq!(waiting(&client).await, NONE);
    worker.stop().await.unwrap();
    assert_eq!(values(&seen), all, "each once");
}

/// A producer may use a key that is longer than what a group parks.
#[tokio::test]
async fn a_record_with_a_very_long_key_is_parked_and_comes_back() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([1]))));
    let worker = failing(member(&client), &seen, &bad);
    let producer = client.producer().build();
    let key = |of: u32| vec![b'a' + u8::try_from(of % 2).unwrap(); 100_000];
    for value in 0..6 {
        let record = ProducerRecord::to("t").key(key(value));
        producer
            .send(record.value(value.to_string()))
            .await
            .unwrap();
    }
    eventually("all committed", || committed(&cluster) == 6).await;
    assert_eq!(cluster.state.lock().groups["g"].refused, 0);
    assert_eq!(waiting(&client).await, [1, 3, 5]);
    bad.lock().clear();
    let selection = Selection {
        key: Some(key(1).into()),
        ..Selection::default()
    };
    let admin = client.groups();
    let done = admin.redrive("g", &selection, |_, _| {}).await.unwrap();
    assert_eq!((done.records, done.keys, done.failed_keys), (3, 1, 0));
    assert_eq!(waiting(&client).await, NONE);
    worker.stop().await.unwrap();
    check_order(&seen.lock());
    assert_eq!(values(&seen), [0, 1, 2, 3, 4, 5]);
}

/// A record is handled, the next one of its key fails, one before both is still at work, and the member dies:
/// the handled one comes again and does not wait with the one that failed.
#[tokio::test]
async fn what_was_handled_and_comes_again_does_not_wait_with_what_failed_behind_it() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    let producer = client.producer().build();
    for (key, value) in [("slow", 0), ("k", 1), ("k", 2)] {
        let record = ProducerRecord::to("t").partition(0).key(key);
        let sent = producer.send(record.value(value.to_string())).await;
        sent.unwrap();
    }
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let work = || {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        member(&client).run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                match value(&record) {
                    0 => gate.acquire().await?.forget(),
                    2 => return Err(HandlerError::permanent("poison")),
                    _ => {}
                }
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let worker = work().unwrap();
    eventually("2 is in the queue", || stored(&cluster, "g.dlq") == 1).await;
    // Commits go on, and with them whatever is parked early.
    for value in 3..6 {
        let before = committed(&cluster);
        keyless(&client, 1, value..value + 1).await;
        eventually("another commit", || committed(&cluster) > before).await;
    }
    drop(worker);
    let name = {
        let state = cluster.state.lock();
        state.groups["g"].members.keys().next().cloned()
    };
    cluster.state.lock().expel("g", &name.unwrap());
    gate.add_permits(1);
    let heir = work().unwrap();
    eventually("all committed", || committed(&cluster) == 6).await;
    assert_eq!(waiting(&client).await, [2]);
    heir.stop().await.unwrap();
}

/// Many wait behind one record that is still at work: they are parked in several requests.
#[tokio::test]
async fn more_than_fits_one_request_is_parked_once_it_is_passed() {
    const MANY: u32 = 2_500;
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let gate = Arc::new(Semaphore::new(0));
    let worker = {
        let gate = Arc::clone(&gate);
        member(&client).run(move |record| {
            let gate = Arc::clone(&gate);
            async move {
                if value(&record) == 0 {
                    gate.acquire().await?.forget();
                    return Ok(());
                }
                Err(HandlerError::permanent("poison"))
            }
        })
    };
    let worker = worker.unwrap();
    let producer = client.producer().build();
    let mut acks = Vec::new();
    for value in 0..=MANY {
        let record = ProducerRecord::to("t").key(format!("k{}", value.min(1)));
        acks.push(
            producer
                .enqueue(record.value(value.to_string()))
                .await
                .unwrap(),
        );
    }
    for ack in acks {
        ack.await.unwrap();
    }
    eventually("all are in the queue", || {
        stored(&cluster, "g.dlq") == u64::from(MANY)
    })
    .await;
    assert!(cluster.state.lock().groups["g"].parked.is_empty());
    let before = cluster.state.lock().groups["g"].park_calls;
    gate.add_permits(1);
    eventually("all committed", || {
        committed(&cluster) == u64::from(MANY) + 1
    })
    .await;
    let parked: Vec<_> = {
        let state = cluster.state.lock();
        state.groups["g"].parked.values().copied().collect()
    };
    assert_eq!(parked, [(1, u64::from(MANY), MANY)]);
    let calls = cluster.state.lock().groups["g"].park_calls - before;
    assert_eq!(calls, 3);
    worker.stop().await.unwrap();
}
