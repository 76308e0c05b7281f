//! The produce protocol without the client's batching: one record per batch, a fixed window per
//! broker, so that two runs differ in nothing but what is under test.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use highwater_client::{Client, NewTopic};
use highwater_proto::TimestampMs;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1::log_client::LogClient;
use highwater_proto::v1::{Outcome, PartitionBatch, ProduceRequest, TopicMetadata};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Makes a topic and waits until all its partitions have leaders.
pub async fn make_topic(
    client: &Client,
    name: &str,
    partitions: u32,
) -> anyhow::Result<TopicMetadata> {
    let topic = NewTopic::named(name)
        .partitions(partitions)
        .replication_factor(3);
    client.admin().create_topic(topic).await?;
    for _ in 0..200 {
        let described = client.admin().describe_topic(name).await?;
        let topic = described
            .topic
            .context("the topic that was just made is missing")?;
        if topic
            .partitions
            .iter()
            .all(|partition| partition.leader.is_some())
        {
            return Ok(topic);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("not every partition of {name} has a leader")
}

/// A batch of one record with `bytes` of value.
pub fn batch(bytes: usize) -> anyhow::Result<Bytes> {
    let value = vec![b'x'; bytes];
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(TimestampMs(1), None, Some(&value), std::iter::empty())?;
    Ok(builder.build())
}

/// What a run did.
#[derive(Debug, Default, Clone)]
pub struct Run {
    /// Batches acknowledged within the span.
    pub acknowledged: u64,
    /// Milliseconds from request to acknowledgement, of a sample.
    pub latencies_ms: Vec<f64>,
}

/// Produces one-record batches round robin over all partitions, `window` outstanding per broker
/// in all, for `span`.
pub async fn run(
    topic: &TopicMetadata,
    addresses: &BTreeMap<u32, String>,
    batch: &Bytes,
    window: usize,
    span: Duration,
) -> anyhow::Result<Run> {
    let mut by_leader: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for partition in &topic.partitions {
        let leader = partition.leader.context("a partition lost its leader")?;
        by_leader
            .entry(leader)
            .or_default()
            .push(partition.partition);
    }
    let share = (window / by_leader.len().max(1)).max(1);
    let mut tasks = Vec::new();
    for (leader, partitions) in by_leader {
        let address = addresses.get(&leader).context("unknown leader")?.clone();
        let (topic_id, batch) = (topic.id, batch.clone());
        tasks.push(tokio::spawn(async move {
            one_broker(&address, topic_id, &partitions, batch, (share, span)).await
        }));
    }
    let mut all = Run::default();
    for task in tasks {
        let run = task.await??;
        all.acknowledged += run.acknowledged;
        all.latencies_ms.extend(run.latencies_ms);
    }
    Ok(all)
}

async fn one_broker(
    address: &str,
    topic_id: u64,
    partitions: &[u32],
    batch: Bytes,
    (window, span): (usize, Duration),
) -> anyhow::Result<Run> {
    let channel = tonic_channel(address).await?;
    let mut client = LogClient::new(channel).max_decoding_message_size(128 << 20);
    let (requests, receiver) = mpsc::channel(window);
    let mut replies = client
        .produce(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    let deadline = Instant::now() + span;
    let mut sent_at: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut turn = partitions.iter().cycle();
    let mut next_id = 0u64;
    let mut run = Run::default();
    loop {
        while sent_at.len() < window && Instant::now() < deadline {
            let partition = *turn.next().context("no partition")?;
            let batches = vec![PartitionBatch {
                topic_id,
                partition,
                batch: batch.clone(),
            }];
            let request = ProduceRequest {
                correlation_id: next_id,
                timeout_ms: 10_000,
                batches,
            };
            requests.send(request).await?;
            sent_at.insert(next_id, Instant::now());
            next_id += 1;
        }
        if sent_at.is_empty() {
            return Ok(run);
        }
        let reply = replies
            .message()
            .await?
            .context("the broker ended the stream")?;
        let sent = sent_at
            .remove(&reply.correlation_id)
            .context("a reply to nothing")?;
        for result in reply.results {
            if result.outcome() != Outcome::Acknowledged {
                bail!("not acknowledged: {:?}", result.error);
            }
            if Instant::now() < deadline {
                run.acknowledged += 1;
            }
        }
        if reply.correlation_id % 16 == 0 {
            run.latencies_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
}

async fn tonic_channel(address: &str) -> anyhow::Result<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
}
