//! A log whose replicas were all lost begins anew, below what the group has committed.

use super::*;

#[tokio::test]
async fn a_log_that_begins_anew_is_handled_from_its_first_record() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 2, 0..10).await;
    let seen = Seen::default();
    let worker = noting(member(&client), &seen);
    eventually("all committed", || committed(&cluster) == 10).await;
    worker.stop().await.unwrap();
    seen.lock().clear();

    let id = {
        let mut state = cluster.state.lock();
        let topic = state.topics.get_mut("t").unwrap();
        topic.partitions[0] = fake::log::Partition::led_by(1);
        topic.id
    };
    produce(&client, 2, 100..103).await;
    // Wherever a group begins that has committed nothing: this one has.
    let worker = noting(member(&client).start_at(GroupStart::Latest), &seen);
    eventually("what is new is committed", || committed(&cluster) == 3).await;
    produce(&client, 2, 103..106).await;
    eventually("and what comes", || committed(&cluster) == 6).await;
    worker.stop().await.unwrap();
    let mut values: Vec<u32> = seen.lock().iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    assert_eq!(values, (100..106).collect::<Vec<_>>(), "topic {id}");
    check_order(&seen.lock());
}

/// Behind what was trimmed it goes on at the first record that is kept, wherever a group without a commit begins.
#[tokio::test]
async fn what_is_kept_behind_a_commit_is_handled() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 1, 0..4).await;
    let seen = Seen::default();
    let worker = noting(member(&client), &seen);
    eventually("all committed", || committed(&cluster) == 4).await;
    worker.stop().await.unwrap();
    seen.lock().clear();
    produce(&client, 1, 4..10).await;
    cluster.state.lock().topics.get_mut("t").unwrap().partitions[0].log_start = 6;
    let worker = noting(member(&client).start_at(GroupStart::Latest), &seen);
    eventually("the rest is committed", || committed(&cluster) == 10).await;
    worker.stop().await.unwrap();
    let values: Vec<u32> = seen.lock().iter().map(|(_, value)| *value).collect();
    assert_eq!(values, [6, 7, 8, 9]);
}
