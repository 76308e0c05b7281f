//! Records that are given up with their partition.

use super::*;

/// A record waits for its next attempt, one of another key behind it is done: what was overtaken is finished
/// when the partition goes. But nothing goes on behind a record that is given up: it comes again after it.
#[tokio::test]
async fn nothing_of_a_key_runs_behind_a_record_that_is_given_up() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let producer = client.producer().build();
    for (key, value) in [("a", 0), ("a", 1), ("b", 2)] {
        let record = ProducerRecord::to("t").key(key).value(value.to_string());
        producer.send(record).await.unwrap();
    }
    let seen = Seen::default();
    let never = Duration::from_secs(600);
    let patient = RetryPolicy::default().backoff(Backoff {
        first: never,
        most: never,
    });
    let worker = {
        let seen = Arc::clone(&seen);
        member(&client).retry(patient).run(move |record| {
            note(&seen, &record);
            let fails = value(&record) == 0;
            async move {
                if fails {
                    return Err(HandlerError::retryable("not now"));
                }
                Ok(())
            }
        })
    };
    let worker = worker.unwrap();
    eventually("the last one is done", || seen.lock().len() == 2).await;
    worker.stop().await.unwrap();
    let mut values: Vec<u32> = seen.lock().iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    assert_eq!(values, [0, 2], "the first of its key was given up");
    assert_eq!(committed(&cluster), 0);

    let others = Seen::default();
    let heir = noting(member(&client), &others);
    eventually("all committed", || committed(&cluster) == 3).await;
    heir.stop().await.unwrap();
    check_order(&others.lock());
}
