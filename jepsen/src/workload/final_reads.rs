//! The reads at the end: everything once more, from the leaders and from every replica's own copy.
//!
//! Each is a fresh process that assigns every partition from its first record and reads past every
//! acknowledged offset. What a replica holds below the end is also summed up in a digest.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use highwater_checker::{Action, Function, Hash, Key, Kind, Offset, Operation};
use highwater_client::{At, Client, ConsumedRecord, Consumer, NodeId, ReadFrom, Start};
use tokio::time::{Instant, timeout};

use super::collect::collect;
use super::consumer::read_of;
use super::{CALM_REQUEST, Shared};

/// How long reading may stand still before it is given up.
const STILL: Duration = Duration::from_secs(30);

/// How long a poll collects.
const COLLECT: Duration = Duration::from_millis(100);

/// The most records of one poll.
const MOST: usize = 5_000;

/// How it went.
#[derive(Debug, Clone, Default)]
pub struct FinalReads {
    /// Records read, of all readers.
    pub records: u64,
    /// Why something could not be read; empty when all was.
    pub problems: Vec<String>,
}

/// Makes all final reads, within `patience`.
///
/// # Errors
/// Only errors of the harness: what the cluster does not do is among the problems.
pub async fn final_reads(shared: &Arc<Shared>, patience: Duration) -> anyhow::Result<FinalReads> {
    let mut done = FinalReads::default();
    let client = shared.client_with("final", CALM_REQUEST)?;
    let Some(ends) = ends(shared, &client, patience).await else {
        let what = format!("no ends of partitions within {} s", patience.as_secs());
        done.problems.push(what);
        return Ok(done);
    };
    let topic = client
        .topic(&shared.plan.topic)
        .await
        .context("the topic is gone")?;
    read_all(shared, None, &ends, patience, &mut done).await?;
    let brokers: Vec<NodeId> = client.view().brokers.keys().copied().collect();
    for broker in brokers {
        let holds = |partition: &u32| {
            let found = topic.partitions.get(*partition as usize);
            found.is_some_and(|found| found.replicas.contains(&broker))
        };
        let own = ends.iter().filter(|(partition, _)| holds(partition));
        let own: BTreeMap<u32, u64> = own.map(|(partition, end)| (*partition, *end)).collect();
        read_all(shared, Some(broker), &own, patience, &mut done).await?;
    }
    Ok(done)
}

/// The end of every partition, as the leaders say, and past every acknowledged offset.
async fn ends(shared: &Shared, client: &Client, patience: Duration) -> Option<BTreeMap<u32, u64>> {
    let given_up = Instant::now() + patience;
    let process = shared.recorder.new_process();
    let keys = 0..shared.plan.partitions;
    let found = loop {
        let asked = keys.clone().map(|p| Action::Latest {
            key: Key(p),
            end: None,
        });
        let asked: Vec<Action> = asked.collect();
        shared
            .recorder
            .invoke(process, Function::Latest, asked.clone());
        match client.topic_offsets(&shared.plan.topic, At::Latest).await {
            Ok(found) => break found,
            Err(_) => {
                shared
                    .recorder
                    .complete(Kind::Fail, process, Function::Latest, asked);
                if Instant::now() > given_up {
                    return None;
                }
            }
        }
    };
    let told = found.iter().map(|found| Action::Latest {
        key: Key(found.partition.0),
        end: Some(Offset(found.offset.0)),
    });
    shared
        .recorder
        .complete(Kind::Ok, process, Function::Latest, told.collect());
    let ends = found
        .iter()
        .map(|found| (found.partition.0, found.offset.0));
    let mut ends: BTreeMap<u32, u64> = ends.collect();
    for acknowledged in shared.acknowledged() {
        let end = ends.entry(acknowledged.partition).or_default();
        *end = (*end).max(acknowledged.offset + 1);
    }
    Some(ends)
}

/// One reader: a broker's own copies, or the leaders'.
async fn read_all(
    shared: &Shared,
    broker: Option<NodeId>,
    ends: &BTreeMap<u32, u64>,
    patience: Duration,
    done: &mut FinalReads,
) -> anyhow::Result<()> {
    let whose = broker.map_or("the leaders".to_owned(), |b| format!("broker {}", b.0));
    let client = shared.client_with("final", CALM_REQUEST)?;
    let mut missing: BTreeMap<u32, u64> = ends.clone();
    missing.retain(|_, end| *end > 0);
    let process = shared.recorder.new_process();
    let keys = ends
        .keys()
        .map(|partition| Action::Use(Key(*partition)))
        .collect();
    let mut assign = Operation::new(0, 0, Kind::Invoke, process, Function::Assign, keys);
    assign.seek_to_beginning = true;
    shared.recorder.record(&mut assign);
    let built = consumer(shared, &client, broker, missing.keys(), patience).await;
    assign.kind = if built.is_ok() { Kind::Ok } else { Kind::Fail };
    shared.recorder.record(&mut assign);
    let mut consumer = match built {
        Ok(consumer) => consumer,
        Err(error) => {
            done.problems
                .push(format!("{whose} could not be read: {error:#}"));
            return Ok(());
        }
    };
    let mut digests: BTreeMap<u32, DefaultHasher> = ends
        .keys()
        .map(|partition| (*partition, DefaultHasher::new()))
        .collect();
    let given_up = Instant::now() + patience;
    while !missing.is_empty() {
        shared.recorder.invoke(process, Function::Poll, Vec::new());
        let (records, trouble) = poll(&mut consumer, given_up).await;
        let reads = records.iter().map(read_of).collect();
        shared
            .recorder
            .complete(Kind::Ok, process, Function::Poll, reads);
        done.records += records.len() as u64;
        for record in &records {
            take(record, &mut missing, &mut digests);
        }
        if let Some(trouble) = trouble {
            let open: Vec<_> = missing.keys().collect();
            let what = format!("reading {whose}: {trouble}; unfinished partitions {open:?}");
            done.problems.push(what);
            return Ok(());
        }
    }
    if let Some(broker) = broker {
        note_digests(shared, broker, ends, &digests);
    }
    Ok(())
}

async fn consumer(
    shared: &Shared,
    client: &Client,
    broker: Option<NodeId>,
    partitions: impl Iterator<Item = &u32> + Clone,
    patience: Duration,
) -> anyhow::Result<Consumer> {
    let given_up = Instant::now() + patience;
    loop {
        let mut builder = client.consumer();
        if let Some(broker) = broker {
            builder = builder.read_from(ReadFrom::Broker(broker));
        }
        for partition in partitions.clone() {
            let start = Start::Offset(highwater_client::Offset(0));
            builder = builder.assign(&shared.plan.topic, *partition, start);
        }
        match builder.build().await {
            Ok(consumer) => return Ok(consumer),
            Err(error) if Instant::now() + CALM_REQUEST > given_up => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// Records that come, and why no more can.
async fn poll(consumer: &mut Consumer, given_up: Instant) -> (Vec<ConsumedRecord>, Option<String>) {
    let patience = STILL.min(given_up.saturating_duration_since(Instant::now()));
    let next = match timeout(patience, consumer.next()).await {
        Ok(next) => Ok(next),
        Err(_) => {
            let what = format!("no record came for {} s", patience.as_secs());
            return (Vec::new(), Some(what));
        }
    };
    collect(consumer, next, (COLLECT, MOST)).await
}

fn take(
    record: &ConsumedRecord,
    missing: &mut BTreeMap<u32, u64>,
    digests: &mut BTreeMap<u32, DefaultHasher>,
) {
    let partition = record.partition.0;
    let Some(end) = missing.get(&partition).copied() else {
        return;
    };
    if record.offset.0 < end
        && let Some(digest) = digests.get_mut(&partition)
    {
        (record.offset.0, record.timestamp.0).hash(digest);
        (&record.key, &record.value, &record.headers).hash(digest);
    }
    if record.offset.0 + 1 >= end {
        missing.remove(&partition);
    }
}

fn note_digests(
    shared: &Shared,
    broker: NodeId,
    ends: &BTreeMap<u32, u64>,
    digests: &BTreeMap<u32, DefaultHasher>,
) {
    let process = shared.recorder.new_process();
    let replica = broker.0;
    let digest = |hash: bool| {
        let one = |(partition, digest): (&u32, &DefaultHasher)| Action::Digest {
            key: Key(*partition),
            replica,
            end: Offset(ends.get(partition).copied().unwrap_or_default()),
            hash: hash.then(|| Hash(digest.finish())),
        };
        digests.iter().map(one).collect::<Vec<Action>>()
    };
    shared
        .recorder
        .invoke(process, Function::Digest, digest(false));
    shared
        .recorder
        .complete(Kind::Ok, process, Function::Digest, digest(true));
}
