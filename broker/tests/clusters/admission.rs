//! However much is sent at once, what a broker takes in stays within its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use highwater_client::NewTopic;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1::{PartitionBatch, ProduceRequest};

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

/// Loaded into a broker, it makes every sync of a file's content take a fiftieth of a second more.
const SLOW_SYNC: &str = "
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int fdatasync(int file) {
    const struct timespec more = {0, 20 * 1000 * 1000};
    nanosleep(&more, NULL);
    return (int)syscall(SYS_fdatasync, file);
}
";
const SLOWER_BY: Duration = Duration::from_millis(20);

fn slow_syncs(fleet: &mut Fleet) {
    let preload = fleet.preload("slow", SLOW_SYNC);
    fleet.set_environment(&format!("MIMALLOC_PURGE_DELAY=0 {preload}"));
}

/// Much more is offered at once than the disk takes: producers wait for it, and not in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_slows_producers_and_memory_does_not_grow() {
    const STREAMS: usize = 10;
    const REQUESTS: usize = 40;
    const REQUEST_BYTES: usize = 1_000_000;
    const ADMITTED: usize = 4 << 20;
    const MOST_BYTES: u64 = 200 << 20;
    let settings = [
        ("limits.admission_bytes", "4MiB"),
        ("limits.receive_bytes", "8MiB"),
        ("limits.tail_cache_bytes", "8MiB"),
        ("limits.log_cache_bytes", "8MiB"),
    ];
    let mut fleet = Fleet::of(1, &settings).await;
    slow_syncs(&mut fleet);
    fleet.start_all().await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("large").partitions(2)).await;
    let mut batch = BatchBuilder::new(Compression::None);
    append(&mut batch, &vec![b'x'; REQUEST_BYTES]);
    let batch = batch.build();
    let began = Instant::now();
    let mut senders = Vec::new();
    for stream in 0..STREAMS {
        let partition = u32::try_from(stream % 2).expect("small");
        let raw = Raw::to_leader(&fleet, &client, "large", partition).await;
        senders.push(tokio::spawn(pipeline(raw, vec![batch.clone(); REQUESTS])));
    }
    for sent in senders {
        assert_eq!(sent.await.expect("no panic"), REQUESTS);
    }
    let took = began.elapsed();
    let most = fleet.peak_memory(1);
    let offered = STREAMS * REQUESTS * REQUEST_BYTES;
    let mib = most >> 20;
    eprintln!("{offered} bytes offered, taken in {took:?}; {mib} MiB resident at most");
    // No sync makes more durable than was admitted.
    let syncs = u32::try_from(offered / ADMITTED).expect("few");
    assert!(took >= SLOWER_BY * syncs, "{took:?} for {syncs} syncs");
    assert!(most <= MOST_BYTES, "{most}");
    let ends = super::journal::ends(&client, "large").await;
    assert_eq!(ends.iter().sum::<u64>(), (STREAMS * REQUESTS) as u64);
}

/// Sends all of them on one stream, without waiting for answers, and counts the acknowledgements.
async fn pipeline(mut raw: Raw, batches: Vec<bytes::Bytes>) -> usize {
    let (topic_id, partition) = (raw.topic, raw.partition);
    let requests = (0_u64..).zip(batches).map(move |(correlation_id, batch)| {
        let batch = PartitionBatch {
            topic_id,
            partition,
            batch,
        };
        ProduceRequest {
            correlation_id,
            timeout_ms: 120_000,
            batches: vec![batch],
        }
    });
    let replies = raw.log.produce(tokio_stream::iter(requests)).await;
    let mut replies = replies.expect("open").into_inner();
    let mut count = 0;
    while let Some(reply) = replies.message().await.expect("no error") {
        reply.results.iter().for_each(|result| {
            acknowledged(result);
        });
        count += reply.results.len();
    }
    count
}
