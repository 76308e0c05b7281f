//! What the application is called with, and that it panics.

use super::*;

#[tokio::test]
async fn a_hook_that_panics_does_not_keep_the_member_from_its_work() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    produce(&client, 4, 0..20).await;
    let called = Arc::new(AtomicU32::new(0));
    let hooked = |builder: GroupBuilder| {
        let (came, went) = (Arc::clone(&called), Arc::clone(&called));
        builder
            .on_assigned(move |_| {
                came.fetch_add(1, Ordering::Relaxed);
                async { panic!("on purpose") }
            })
            .on_revoked(move |_, _| {
                went.fetch_add(1, Ordering::Relaxed);
                async { panic!("on purpose") }
            })
    };
    let seen = Seen::default();
    let first = noting(hooked(member(&client)), &seen);
    eventually("all committed", || committed(&cluster) == 20).await;
    // It gives a partition up to the second one.
    let second = noting(hooked(member(&client)), &seen);
    eventually("each has one", || {
        first.assignment().len() == 1 && second.assignment().len() == 1
    })
    .await;
    produce(&client, 4, 20..40).await;
    eventually("the rest is committed", || committed(&cluster) == 40).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert!(called.load(Ordering::Relaxed) >= 4);
    check_order(&seen.lock());
}

#[tokio::test]
async fn a_handler_that_panics_is_one_that_failed() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 1, 0..3).await;
    let seen = Seen::default();
    let worker = {
        let seen = Arc::clone(&seen);
        member(&client).run(move |record| {
            let seen = Arc::clone(&seen);
            async move {
                assert!(record.attempt() > 1 || value(&record) != 1, "once");
                note(&seen, &record);
                Ok(())
            }
        })
    };
    eventually("all committed", || committed(&cluster) == 3).await;
    worker.unwrap().stop().await.unwrap();
    assert_eq!(seen.lock().len(), 3);
}
