//! Apache Kafka: three processes that are broker and controller at once, driven with librdkafka.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use highwater_load::bench::backend::{
    Ack, Backend, Message, Received, Sink, SinkSettings, Source, TopicSpec,
};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::process::Command;

use crate::peer::{Places, Started, spawn, wait_for_ports};

const AT_ONCE: usize = 512;
const CLUSTER_ID: &str = "aGlnaHdhdGVyLWJlbmNoMQ";
/// As Kafka's own start script sets them.
const JVM: [&str; 8] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// Starts three of them.
pub async fn start(places: &Places, directory: &Path, ports: &[u16]) -> anyhow::Result<Started> {
    let [a, b, c, d, e, f, ..] = ports else {
        bail!("six ports are needed");
    };
    let (brokers, controllers) = ([a, b, c], [d, e, f]);
    let voters: Vec<String> = (1..)
        .zip(controllers)
        .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
        .collect();
    let classes = format!("{}/*", places.peers.join("kafka/libs").display());
    let mut children = Vec::new();
    for ((id, broker), controller) in (1..).zip(brokers).zip(controllers) {
        let config = directory.join(format!("kafka-{id}.properties"));
        let data = directory.join(format!("data-{id}"));
        let text = format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             controller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={data}\nmin.insync.replicas=2\ndefault.replication.factor=3\n\
             offsets.topic.replication.factor=3\ntransaction.state.log.replication.factor=3\n",
            voters = voters.join(","),
            data = data.display()
        );
        std::fs::write(&config, text)?;
        let log = directory.join(format!("kafka-{id}.log"));
        let mut format = java(&classes, &["-Xmx256M"], "kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]);
        format.arg(&config);
        if !spawn(&mut format, &log)?.wait().await?.success() {
            bail!(
                "the storage could not be formatted: {}",
                std::fs::read_to_string(&log)?
            );
        }
        let mut server = java(&classes, &JVM, "kafka.Kafka");
        server.arg(&config);
        children.push(spawn(&mut server, &log)?);
    }
    wait_for_ports(&[*a, *b, *c], &directory.join("kafka-1.log")).await?;
    let addresses = brokers.map(|port| format!("127.0.0.1:{port}"));
    Ok(Started {
        connection: addresses.join(","),
        children,
    })
}

fn java(classes: &str, options: &[&str], main: &str) -> Command {
    let mut command = Command::new("java");
    command.args(options).args(["-cp", classes, main]);
    command
}

/// Brokers by their addresses.
pub struct Kafka {
    /// host:port, separated by commas.
    pub connection: String,
    /// Whether topics are made with `flush.messages=1`.
    pub flush: bool,
}

impl Kafka {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.connection);
        config
    }
}

struct KafkaSink {
    producer: FutureProducer,
    topic: String,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn send(&self, message: Message) -> anyhow::Result<Ack> {
        loop {
            let mut record: FutureRecord<'_, [u8], [u8]> =
                FutureRecord::to(&self.topic).payload(&message.value);
            if let Some(key) = &message.key {
                record = record.key(key);
            }
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    return Ok(Box::pin(async move {
                        let outcome = delivery.await.context("the producer has ended")?;
                        outcome.map_err(|(error, _)| error)?;
                        Ok(())
                    }));
                }
                // Its buffer is full: there is nothing to be awaited but time.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

struct KafkaSource {
    consumer: StreamConsumer,
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self, into: &mut Vec<Received>) -> anyhow::Result<()> {
        let first = self.consumer.recv().await?;
        let take = |payload: Option<&[u8]>| Received {
            value: Bytes::copy_from_slice(payload.unwrap_or_default()),
        };
        into.push(take(first.payload()));
        while into.len() < AT_ONCE {
            match self.consumer.recv().now_or_never() {
                Some(next) => into.push(take(next?.payload())),
                None => break,
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Kafka {
    async fn create_topic(&self, topic: &TopicSpec) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let partitions = i32::try_from(topic.partitions)?;
        let mut new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(3));
        for (key, value) in &topic.config {
            new = new.set(key, value);
        }
        if self.flush {
            new = new.set("flush.messages", "1");
        }
        let patience = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        // Brokers that listen may not have registered yet: then three replicas are too many.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let made = admin.create_topics([&new], &patience).await?;
            match made.into_iter().next().context("no answer")? {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => break,
                Err((_, code)) if tokio::time::Instant::now() > deadline => {
                    bail!("the topic could not be made: {code}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        loop {
            let found = admin
                .inner()
                .fetch_metadata(Some(&topic.name), Duration::from_secs(10))?;
            let led = found.topics().iter().flat_map(|topic| topic.partitions());
            if led
                .filter(|p| p.leader() >= 0 && p.isr().len() == 3)
                .count()
                == partitions as usize
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("not every partition has a leader");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn sink(&self, topic: &str, settings: SinkSettings) -> anyhow::Result<Box<dyn Sink>> {
        let mut config = self.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "1000000")
            .set(
                "queue.buffering.max.kbytes",
                (settings.buffer_bytes >> 10).to_string(),
            );
        if let Some(linger) = settings.linger_ms {
            config.set("linger.ms", linger.to_string());
        }
        if let Some(bytes) = settings.batch_bytes {
            config.set("batch.size", bytes.to_string());
        }
        Ok(Box::new(KafkaSink {
            producer: config.create()?,
            topic: topic.to_owned(),
        }))
    }

    async fn source(&self, topic: &str, partitions: Vec<u32>) -> anyhow::Result<Box<dyn Source>> {
        let mut config = self.config();
        config
            .set("group.id", "none")
            .set("enable.auto.commit", "false");
        let consumer: StreamConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        Ok(Box::new(KafkaSource { consumer }))
    }
}
