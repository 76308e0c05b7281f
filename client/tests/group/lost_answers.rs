//! Redrives of which an answer was lost: nothing is handled twice.

use super::*;

#[tokio::test]
async fn what_was_redriven_is_never_handled_again_whatever_was_lost_on_the_way() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 2, 0..10).await;
    let (seen, bad) = (Seen::default(), Arc::new(Mutex::new(BTreeSet::from([1]))));
    let worker = failing(member(&client), &seen, &bad);
    eventually("all committed", || committed(&cluster) == 10).await;
    bad.lock().clear();
    let parked = cluster.state.lock().groups["g"].parked.clone();
    assert_eq!(parked.len(), 1);
    let redrive = async || {
        let admin = client.groups();
        admin.redrive("g", &Selection::default(), |_, _| {}).await
    };
    // The redrive ends between the handling and the unparking.
    cluster
        .state
        .lock()
        .groups
        .get_mut("g")
        .unwrap()
        .refused_unparks = 1;
    redrive().await.unwrap_err();
    assert_eq!(seen.lock().len(), 10, "all five were handled");
    assert_eq!(cluster.state.lock().groups["g"].parked, parked);
    let again = redrive().await.unwrap();
    assert_eq!((again.records, again.keys, again.failed_keys), (0, 1, 0));
    assert_eq!(letters(&client, false).await, []);
    // A member repeats a request to park whose answer was lost, behind the redrive: its key is
    // parked although everything was handled.
    cluster.state.lock().groups.get_mut("g").unwrap().parked = parked;
    let again = redrive().await.unwrap();
    assert_eq!((again.records, again.keys, again.failed_keys), (0, 1, 0));
    assert_eq!(letters(&client, false).await, []);
    worker.stop().await.unwrap();
    let seen = seen.lock().clone();
    check_order(&seen);
    assert_eq!(seen.len(), 10, "none twice");
}
