//! Reading everything back, from the leaders and from every broker's own copies.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::bus::ClientBus;
use crate::evidence::{Digest, Observed, ReplicaRead};

/// Reads every partition from its first record up to `ends`, and hands each record to `take`.
/// `patience` is how long the next record may take.
pub(crate) async fn read_to_end(
    bus: &ClientBus,
    topic: &str,
    ends: &BTreeMap<u32, u64>,
    broker: Option<u32>,
    patience: Duration,
    mut take: impl FnMut(Observed),
) -> anyhow::Result<()> {
    let mut missing: BTreeMap<u32, u64> = ends.clone();
    missing.retain(|_, end| *end > 0);
    if missing.is_empty() {
        return Ok(());
    }
    let from = missing.keys().map(|partition| (*partition, 0)).collect();
    let mut records = bus.read(topic, &from, broker).await?;
    while !missing.is_empty() {
        let next = timeout(patience, records.next()).await.with_context(|| {
            let whose = broker.map_or(String::new(), |broker| format!(" of broker {broker}"));
            let open: Vec<_> = missing.keys().collect();
            format!("reading {topic}{whose} stood still; unfinished partitions {open:?}")
        })?;
        let record = next.with_context(|| format!("reading {topic} ended early"))??;
        let Some(end) = missing.get(&record.at.partition).copied() else {
            continue;
        };
        let (partition, offset) = (record.at.partition, record.at.offset);
        if offset < end {
            take(record);
        }
        if offset.saturating_add(1) >= end {
            missing.remove(&partition);
        }
    }
    Ok(())
}

/// What one broker's own copies of a topic hold, partition by partition.
pub(crate) async fn read_copies(
    bus: &ClientBus,
    topic: &str,
    ends: &BTreeMap<u32, u64>,
    broker: u32,
    patience: Duration,
) -> anyhow::Result<Vec<ReplicaRead>> {
    let mut digests: BTreeMap<u32, Digest> = ends
        .keys()
        .map(|partition| (*partition, Digest::default()))
        .collect();
    read_to_end(bus, topic, ends, Some(broker), patience, |record| {
        let digest = digests.entry(record.at.partition).or_default();
        digest.add(&record);
    })
    .await?;
    let topic = topic.to_owned();
    Ok(digests
        .into_iter()
        .map(|(partition, digest)| ReplicaRead {
            broker,
            topic: topic.clone(),
            partition,
            digest,
        })
        .collect())
}
