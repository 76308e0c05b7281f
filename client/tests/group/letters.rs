//! The dead letter queue is there when it is needed, and takes what it has to.

use super::*;

fn queue_len(cluster: &FakeCluster) -> u64 {
    let state = cluster.state.lock();
    let queue = state.topics.get("g.dlq");
    queue.map_or(0, |queue| queue.partitions.iter().map(|p| p.end()).sum())
}

/// A member of both topics, whose handler fails whatever comes.
fn failing_both(client: &Client) -> GroupWorker {
    let builder = member(client).topic("large");
    let worker = builder.run(|_| async { Err(HandlerError::permanent("poison")) });
    worker.unwrap()
}

async fn send(client: &Client, topic: &str, bytes: usize) {
    let producer = client.producer().build();
    let record = ProducerRecord::to(topic).key("k").value(vec![7; bytes]);
    producer.send(record).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_was_made_for_small_records_takes_large_ones() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let configs = BTreeMap::from([("max.message.bytes".to_owned(), (4 << 20).to_string())]);
    cluster.state.lock().create("large", 1, 3, configs);
    cluster.announce();
    let client = cluster.client().await;
    let worker = failing_both(&client);
    send(&client, "t", 100).await;
    eventually("the small one is there", || queue_len(&cluster) == 1).await;
    send(&client, "large", 2 << 20).await;
    eventually("the large one is there", || queue_len(&cluster) == 2).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_queue_that_was_deleted_is_made_again() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    cluster.topic("large", 1);
    let client = cluster.client().await;
    let worker = failing_both(&client);
    send(&client, "t", 100).await;
    eventually("the first one is there", || queue_len(&cluster) == 1).await;
    cluster.state.lock().topics.remove("g.dlq");
    cluster.announce();
    send(&client, "large", 100).await;
    eventually("the second one is there", || queue_len(&cluster) == 1).await;
    worker.stop().await.unwrap();
}
