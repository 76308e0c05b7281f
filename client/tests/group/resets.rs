//! Offsets that are moved while members work.

use super::*;

/// A member that has done more than it has committed, and has a handler at work, is told to start
/// anew: nothing of what it did before is committed over the reset, whoever works on from there.
#[tokio::test]
async fn what_was_done_before_a_forced_reset_is_not_committed_over_it() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    let id = cluster.state.lock().topics["t"].id;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(5)));
    let worker = {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        let member = member(&client).commit_interval(Duration::from_secs(600));
        member.run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                note(&seen, &record);
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    let begun = || {
        let state = cluster.state.lock();
        state
            .groups
            .get("g")
            .is_some_and(|group| group.offsets.len() == 2)
    };
    eventually("where it begins is committed", begun).await;
    // From here on nothing is committed until the member gives something up.
    produce(&client, 1, 0..6).await;
    eventually("the last is at work", || seen.lock().len() == 6).await;
    assert_eq!(committed(&cluster), 0);
    for partition in 0..2 {
        cluster.state.lock().reset("g", (id, partition), 0);
    }
    cluster.announce();
    // The handler ends only when the member gives the old grant up, or after it did.
    gate.add_permits(1);
    eventually("it begins anew", || seen.lock().len() == 7).await;
    assert_eq!(seen.lock()[6].1, 0);
    assert_eq!(committed(&cluster), 0, "committed over the reset");

    // It dies; another goes on where the reset left the group.
    drop(worker);
    let name = cluster.state.lock().groups["g"]
        .members
        .keys()
        .next()
        .cloned();
    cluster.state.lock().expel("g", &name.unwrap());
    let others = Seen::default();
    let heir = noting(member(&client), &others);
    eventually("all committed", || committed(&cluster) == 6).await;
    heir.stop().await.unwrap();
    let handled: Vec<u32> = others.lock().iter().map(|(_, value)| *value).collect();
    assert_eq!(handled, [0, 1, 2, 3, 4, 5]);
}

/// Records that come again after a reset and lie before what is parked: with a key they are set aside
/// like those behind them, without one they are handled, and what fails of them waits.
#[tokio::test]
async fn what_comes_again_before_a_parked_record_waits_with_it() {
    for keyed in [true, false] {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 1);
        let client = cluster.client().await;
        let producer = client.producer().build();
        for value in 0..6 {
            let mut record = ProducerRecord::to("t").value(value.to_string());
            record.key = keyed.then(|| "k".into());
            producer.send(record).await.unwrap();
        }
        let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([3]))));
        let worker = failing(member(&client), &seen, &bad);
        eventually("all committed", || committed(&cluster) == 6).await;
        bad.lock().insert(1);
        let id = cluster.state.lock().topics["t"].id;
        cluster.state.lock().reset("g", (id, 0), 0);
        assert_eq!(committed(&cluster), 0);
        cluster.announce();
        eventually("all committed again", || committed(&cluster) == 6).await;
        let waiting = letters(&client, false).await;
        let waiting: Vec<u32> = waiting.iter().map(|(value, _)| *value).collect();
        let expected: &[u32] = if keyed { &[0, 1, 2, 3, 4, 5] } else { &[1, 3] };
        assert_eq!(waiting, expected);
        bad.lock().clear();
        let begun = seen.lock().len();
        let admin = client.groups();
        let done = admin.redrive("g", &Selection::default(), |_, _| {}).await;
        let done = done.unwrap();
        assert_eq!((done.keys, done.failed_keys), (1, 0));
        let mut handled: Vec<u32> = seen.lock()[begun..].iter().map(|(_, v)| *v).collect();
        if !keyed {
            handled.sort_unstable();
        }
        assert_eq!(handled, expected);
        worker.stop().await.unwrap();
    }
}
