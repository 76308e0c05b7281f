//! NATS JetStream: three servers, a stream with three replicas per topic, a subject per partition
//! (a stream is one Raft group, as in the OpenMessaging Benchmark's driver).

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::{self, stream};
use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use highwater_load::bench::backend::{
    Ack, Backend, Message, Received, Sink, SinkSettings, Source, TopicSpec,
};
use tokio::process::Command;

use crate::peer::{Places, Started, spawn, wait_for_ports};

const AT_ONCE: usize = 512;
const STREAM_WITHIN: Duration = Duration::from_secs(30);

/// Starts three of them.
pub async fn start(
    always: bool,
    places: &Places,
    directory: &Path,
    ports: &[u16],
) -> anyhow::Result<Started> {
    let [a, b, c, d, e, f, ..] = ports else {
        bail!("six ports are needed");
    };
    let (clients, routes) = ([a, b, c], [d, e, f]);
    let all: Vec<String> = routes
        .iter()
        .map(|port| format!("nats://127.0.0.1:{port}"))
        .collect();
    let mut children = Vec::new();
    for ((id, client), route) in (1..).zip(clients).zip(routes) {
        let config = directory.join(format!("nats-{id}.conf"));
        let sync = if always { "sync_interval: always" } else { "" };
        let text = format!(
            "server_name: n{id}\nlisten: 127.0.0.1:{client}\n\
             jetstream {{\n store_dir: \"{store}\"\n max_file_store: 100GB\n {sync}\n}}\n\
             cluster {{\n name: bench\n listen: 127.0.0.1:{route}\n routes: [{all}]\n}}\n",
            store = directory.join(format!("data-{id}")).display(),
            all = all.join(", ")
        );
        std::fs::write(&config, text)?;
        let mut server = Command::new(places.peers.join("bin/nats-server"));
        server.arg("-c").arg(&config);
        children.push(spawn(
            &mut server,
            &directory.join(format!("nats-{id}.log")),
        )?);
    }
    wait_for_ports(&[*a, *b, *c], &directory.join("nats-1.log")).await?;
    let addresses = clients.map(|port| format!("nats://127.0.0.1:{port}"));
    Ok(Started {
        connection: addresses.join(","),
        children,
    })
}

/// Servers by their addresses.
pub struct Nats {
    /// URLs, separated by commas.
    pub connection: String,
}

impl Nats {
    async fn connect(&self) -> anyhow::Result<jetstream::Context> {
        let servers: Vec<&str> = self.connection.split(',').collect();
        let client = async_nats::connect(servers).await?;
        Ok(jetstream::new(client))
    }
}

struct NatsSink {
    context: jetstream::Context,
    topic: String,
    partitions: u32,
    turn: AtomicU32,
}

#[async_trait]
impl Sink for NatsSink {
    async fn send(&self, message: Message) -> anyhow::Result<Ack> {
        let number = match &message.key {
            // Any hash does: only that equal keys meet matters.
            Some(key) => key.iter().fold(0u32, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
            }),
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let subject = format!("{}.{}", self.topic, number % self.partitions.max(1));
        let ack = self.context.publish(subject, message.value).await?;
        Ok(Box::pin(async move {
            ack.await?;
            Ok(())
        }))
    }
}

struct NatsSource {
    messages: Ordered,
}

#[async_trait]
impl Source for NatsSource {
    async fn next(&mut self, into: &mut Vec<Received>) -> anyhow::Result<()> {
        let first = self.messages.next().await.context("the stream ended")??;
        into.push(Received {
            value: first.message.payload,
        });
        while into.len() < AT_ONCE {
            let Some(next) = self.messages.next().now_or_never() else {
                break;
            };
            into.push(Received {
                value: next.context("the stream ended")??.message.payload,
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Nats {
    async fn create_topic(&self, topic: &TopicSpec) -> anyhow::Result<()> {
        let context = self.connect().await?;
        let config = stream::Config {
            name: topic.name.clone(),
            subjects: vec![format!("{}.>", topic.name)],
            num_replicas: 3,
            storage: stream::StorageType::File,
            ..stream::Config::default()
        };
        // Servers that listen may not have a leader yet.
        let deadline = tokio::time::Instant::now() + STREAM_WITHIN;
        loop {
            match context.create_stream(config.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn sink(&self, topic: &str, _settings: SinkSettings) -> anyhow::Result<Box<dyn Sink>> {
        // Nothing is batched on the client's side, so there is nothing to set.
        Ok(Box::new(NatsSink {
            context: self.connect().await?,
            topic: topic.to_owned(),
            partitions: 16,
            turn: AtomicU32::new(0),
        }))
    }

    async fn source(&self, topic: &str, _partitions: Vec<u32>) -> anyhow::Result<Box<dyn Source>> {
        let context = self.connect().await?;
        let stream = context.get_stream(topic).await?;
        let consumer = stream.create_consumer(OrderedConfig::default()).await?;
        Ok(Box::new(NatsSource {
            messages: consumer.messages().await?,
        }))
    }
}
