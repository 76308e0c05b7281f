//! However much is sent at once, what a broker takes in stays within its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_client::NewTopic;
use highwater_proto::batch::{BatchBuilder, Compression};

use super::fleet::Fleet;
use super::journal::make_topic;
use super::raw::{Raw, acknowledged, append};

const STREAMS: usize = 12;
const BATCHES: usize = 6;
const BATCH_BYTES: usize = 400_000;
const BOUND: f64 = 1_048_576.0;

#[tokio::test(flavor = "multi_thread")]
async fn produced_bytes_in_flight_are_bounded() {
    let settings = [("limits.admission_bytes", "1MiB")];
    let fleet = Fleet::started(1, &settings).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("large").partitions(4)).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for stream in 0..STREAMS {
        let partition = u32::try_from(stream % 4).expect("small");
        let mut raw = Raw::to_leader(&fleet, &client, "large", partition).await;
        senders.push(tokio::spawn(async move {
            for _ in 0..BATCHES {
                let mut batch = BatchBuilder::new(Compression::None);
                append(&mut batch, &vec![b'x'; BATCH_BYTES]);
                acknowledged(&raw.one(batch.build()).await);
            }
        }));
    }
    let all = futures_util::future::join_all(senders);
    let watch = async {
        let mut most = 0.0_f64;
        while !done.load(Ordering::Relaxed) {
            let now = fleet.metric(1, "highwater_admission_bytes").await;
            most = most.max(now.expect("there"));
        }
        most
    };
    let send = async {
        for sent in all.await {
            sent.expect("every batch is acknowledged");
        }
        done.store(true, Ordering::Relaxed);
    };
    let ((), most) = tokio::join!(send, watch);
    eprintln!("{most} bytes in flight at most");
    assert!(most <= BOUND, "{most}");
    let ends = super::journal::ends(&client, "large").await;
    assert_eq!(ends.iter().sum::<u64>(), (STREAMS * BATCHES) as u64);
}

/// Requests as large as any are put together before anybody can look at them.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_in_are_bounded_too() {
    const REQUESTS: usize = 24;
    const REQUEST_BYTES: usize = 48 << 20;
    const MOST_BYTES: u64 = 300 << 20;
    let settings = [("limits.receive_bytes", "64MiB")];
    let mut fleet = Fleet::of(1, &settings).await;
    // What is resident is then what is held, and not what the allocator keeps for a moment: that is up to twice
    // as much again.
    fleet.set_environment("MIMALLOC_PURGE_DELAY=0");
    fleet.start_all().await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("small")).await;
    let large = bytes::Bytes::from(vec![0; REQUEST_BYTES]);
    let mut senders = Vec::new();
    for _ in 0..REQUESTS {
        let mut raw = Raw::to_leader(&fleet, &client, "small", 0).await;
        let large = large.clone();
        senders.push(tokio::spawn(
            async move { raw.send(vec![large], 60_000).await },
        ));
    }
    for sent in senders {
        let results = sent.await.expect("an answer");
        let error = results.first().and_then(|result| result.error.as_ref());
        assert!(error.is_some(), "no batch is that large");
    }
    let most = fleet.peak_memory(1);
    eprintln!("{} MiB resident at most", most >> 20);
    assert!(most <= MOST_BYTES, "{most}");
}
