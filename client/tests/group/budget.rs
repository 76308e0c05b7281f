//! Handlers whose retries share a budget.

use highwater_client::resilience::{BudgetSettings, RetryBudget};

use super::*;

/// Ten records that always fail want twenty retries. The budget allows one for two records; the rest is
/// put off until more records pay for it, and then each has its three attempts and not one more.
#[tokio::test]
async fn retries_beyond_the_budget_are_put_off_and_not_lost() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let budget = Arc::new(RetryBudget::new(BudgetSettings {
        window: Duration::from_secs(600),
        percent: 50,
        free_per_second: 0,
    }));
    produce(&client, 10, 0..10).await;
    let attempts = Arc::new(AtomicU32::new(0));
    let worker = {
        let attempts = Arc::clone(&attempts);
        let member = member(&client).retry(quick().budget(Arc::clone(&budget)));
        member.run(move |record| {
            let bad = value(&record) < 10;
            attempts.fetch_add(u32::from(bad), Ordering::SeqCst);
            async move {
                match bad {
                    true => Err(HandlerError::retryable("bad")),
                    false => Ok(()),
                }
            }
        })
    };
    let worker = worker.unwrap();
    eventually("the budget is used up", || budget.counts().refused >= 10).await;
    let counts = budget.counts();
    assert_eq!((counts.calls, counts.retries), (10, 5));
    assert_eq!(attempts.load(Ordering::SeqCst), 15);
    assert!(letters(&client, false).await.len() <= 2);

    // Other keys: those of the bad ones stand still meanwhile.
    let producer = client.producer().build();
    for at in 10..40 {
        let record = ProducerRecord::to("t").key(format!("other-{at}"));
        producer.send(record.value(at.to_string())).await.unwrap();
    }
    eventually("all committed", || committed(&cluster) == 40).await;
    worker.stop().await.unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 30);
    assert_eq!(letters(&client, false).await.len(), 10);
    let counts = budget.counts();
    assert_eq!((counts.calls, counts.retries), (40, 20));
}
