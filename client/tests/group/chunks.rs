//! Handlers that take what waits of a key together.

use highwater_client::group::Chunk;

use super::*;

/// A chunk is in order and of one key; a record that fails in the middle of one has its three
/// attempts, parks its key, and what was before it in the chunk is not handled again.
#[tokio::test]
async fn chunks_keep_order_and_fail_where_they_fail() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    produce(&client, 3, 0..60).await;
    let seen: Seen = Seen::default();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let largest = Arc::new(Mutex::new(0));
    let worker = {
        let (seen, attempts, largest) = (seen.clone(), Arc::clone(&attempts), Arc::clone(&largest));
        member(&client)
            .retry(quick())
            .run_chunks(8, move |records| {
                let (seen, attempts) = (seen.clone(), Arc::clone(&attempts));
                let mut most = largest.lock();
                *most = (*most).max(records.len());
                drop(most);
                async move {
                    // What comes meanwhile waits in the lane.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let keys: BTreeSet<_> = records.iter().map(|r| r.key.clone()).collect();
                    assert_eq!(keys.len(), 1, "a chunk has one key");
                    for (at, record) in records.iter().enumerate() {
                        if value(record) == 31 {
                            attempts.lock().push(record.attempt());
                            return Chunk::failed(at, HandlerError::retryable("bad"));
                        }
                        note(&seen, record);
                    }
                    Chunk::all(records.len())
                }
            })
    };
    let worker = worker.unwrap();
    // Of the key of 31 the 10 records before it; of the two others all.
    eventually("all committed", || committed(&cluster) == 60).await;
    assert_eq!(seen.lock().len(), 50);
    worker.stop().await.unwrap();
    assert_eq!(*attempts.lock(), [1, 2, 3]);
    check_order(&seen.lock());
    assert!(*largest.lock() > 1 && *largest.lock() <= 8);
    assert_eq!(letters(&client, false).await.len(), 10);
}
