//! Readers that take one partition from its first record to its end, each a process of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_checker::{Action, Function, Kind, Offset, Operation};
use highwater_client::{At, Client, ConsumedRecord, Consumer, NodeId, OutOfRange, PartitionId};
use highwater_client::{ReadFrom, Start};
use rand::Rng as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::super::collect::collect;
use super::super::pace::Pace;
use super::{Place, places};

/// Scans a second.
const RATE: f64 = 0.5;
/// How long one may take: less than tombstones are kept.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);
/// How long a poll waits for its first record, and collects after that.
const WAIT: Duration = Duration::from_millis(200);
const COLLECT: Duration = Duration::from_millis(50);
const MOST: usize = 2_000;

/// One partition after the other, until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(42_000);
    let mut pace = Pace::new(RATE);
    while pace.wait(&mut random, &stop).await {
        let places = places(&shared);
        let Some(place) = places.get(random.random_range(0..places.len())) else {
            continue;
        };
        let client = shared.client("scan")?;
        let Some(end) = end_of(&client, place).await else {
            continue;
        };
        // What it did not reach, the last one will.
        if let Err(why) = scan(&shared, &client, place, None, (end, PATIENCE)).await {
            shared.complain(why);
        }
    }
    Ok(())
}

/// Where a partition ends, as its leader says.
pub(super) async fn end_of(client: &Client, place: &Place) -> Option<u64> {
    let asked = [(PartitionId(place.partition), At::Latest)];
    let found = client.list_offsets(&place.topic, &asked).await.ok()?;
    Some(found.first()?.offset.0)
}

/// Reads from the first record kept to `end`, from the leader or from a broker's own copy. Answers with
/// how many records there were; or what stood in the way.
pub(super) async fn scan(
    shared: &Shared,
    client: &Client,
    place: &Place,
    broker: Option<NodeId>,
    (end, patience): (u64, Duration),
) -> Result<u64, String> {
    let recorder = &shared.recorder;
    let given_up = Instant::now() + patience;
    let process = recorder.new_process();
    let keys = vec![Action::Use(place.key)];
    let mut assign = Operation::new(0, 0, Kind::Invoke, process, Function::Assign, keys);
    assign.seek_to_beginning = true;
    recorder.record(&mut assign);
    let mut builder = client
        .consumer()
        // It may go while it is read.
        .out_of_range(OutOfRange::Earliest)
        .assign(&place.topic, place.partition, Start::Earliest);
    if let Some(broker) = broker {
        builder = builder.read_from(ReadFrom::Broker(broker));
    }
    let built = builder.build().await;
    assign.kind = if built.is_ok() { Kind::Ok } else { Kind::Fail };
    recorder.record(&mut assign);
    let whose = broker.map_or("the leader".to_owned(), |b| format!("broker {}", b.0));
    let told = |why: String| format!("{} of {whose}: {why}", place.topic);
    let mut consumer = built.map_err(|error| told(error.to_string()))?;
    let mut count = 0;
    loop {
        let at = consumer.position(&place.topic, place.partition);
        if at.is_some_and(|at| at.0 >= end) {
            return Ok(count);
        }
        if Instant::now() > given_up {
            return Err(told(format!("at {at:?} of {end} when it was given up")));
        }
        recorder.invoke(process, Function::Poll, Vec::new());
        let (records, trouble) = poll(&mut consumer).await;
        count += records.len() as u64;
        let reads = records.iter().map(|record| Action::Read {
            key: place.key,
            offset: Offset(record.offset.0),
            value: (place.decode)(record),
        });
        recorder.complete(Kind::Ok, process, Function::Poll, reads.collect());
        if let Some(trouble) = trouble {
            return Err(told(trouble));
        }
    }
}

/// Records that come, and why no more can.
async fn poll(consumer: &mut Consumer) -> (Vec<ConsumedRecord>, Option<String>) {
    let first = timeout(WAIT, consumer.next()).await;
    collect(consumer, first, (COLLECT, MOST)).await
}
