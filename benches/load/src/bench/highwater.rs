//! Highwater behind the generator.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use highwater_client::{Client, Consumer, NewTopic, Producer, ProducerRecord};

use super::backend::{Ack, Backend, Message, Received, Sink, SinkSettings, Source, TopicSpec};

/// How many ready records are taken at once.
const AT_ONCE: usize = 512;
const LEADERS_WITHIN: Duration = Duration::from_secs(60);

/// A Highwater cluster by its connection string.
#[derive(Debug, Clone)]
pub struct Highwater {
    /// `highwater://host:port,...`
    pub connection: String,
}

struct HighwaterSink {
    producer: Producer,
    topic: String,
}

#[async_trait]
impl Sink for HighwaterSink {
    async fn send(&self, message: Message) -> anyhow::Result<Ack> {
        let mut record = ProducerRecord::to(self.topic.clone()).value(message.value);
        record.key = message.key;
        let ack = self.producer.enqueue(record).await?;
        Ok(Box::pin(async move {
            ack.await?;
            Ok(())
        }))
    }
}

struct HighwaterSource {
    consumer: Consumer,
}

#[async_trait]
impl Source for HighwaterSource {
    async fn next(&mut self, into: &mut Vec<Received>) -> anyhow::Result<()> {
        let mut record = self.consumer.next().await.context("the stream ended")??;
        loop {
            into.push(Received {
                value: record.value.unwrap_or_default(),
            });
            if into.len() >= AT_ONCE {
                return Ok(());
            }
            match self.consumer.next().now_or_never() {
                Some(next) => record = next.context("the stream ended")??,
                None => return Ok(()),
            }
        }
    }
}

#[async_trait]
impl Backend for Highwater {
    async fn create_topic(&self, topic: &TopicSpec) -> anyhow::Result<()> {
        let client = Client::connect(&self.connection).await?;
        let mut new = NewTopic::named(&topic.name)
            .partitions(topic.partitions)
            .replication_factor(3);
        for (key, value) in &topic.config {
            new = new.config(key, value);
        }
        client
            .admin()
            .timeout(LEADERS_WITHIN)
            .create_topic(new)
            .await?;
        // A change of the view may bring the leader that is missing.
        let deadline = tokio::time::Instant::now() + LEADERS_WITHIN;
        let mut changes = client.changes();
        loop {
            let described = client.admin().describe_topic(&topic.name).await?;
            let partitions = described.topic.unwrap_or_default().partitions;
            if partitions
                .iter()
                .all(|partition| partition.leader.is_some())
            {
                return Ok(());
            }
            let news = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            if let Ok(ended) = news {
                ended.context("the client stopped watching")?;
            }
            if tokio::time::Instant::now() > deadline {
                bail!("not every partition of {} has a leader", topic.name);
            }
        }
    }

    async fn sink(&self, topic: &str, settings: SinkSettings) -> anyhow::Result<Box<dyn Sink>> {
        let client = Client::connect(&self.connection).await?;
        let mut builder = client.producer().buffer_bytes(settings.buffer_bytes);
        if let Some(linger) = settings.linger_ms {
            builder = builder.linger(Duration::from_secs_f64(linger / 1e3));
        }
        if let Some(bytes) = settings.batch_bytes {
            builder = builder.batch_bytes(bytes);
        }
        Ok(Box::new(HighwaterSink {
            producer: builder.build(),
            topic: topic.to_owned(),
        }))
    }

    async fn source(&self, topic: &str, partitions: Vec<u32>) -> anyhow::Result<Box<dyn Source>> {
        let client = Client::connect(&self.connection).await?;
        let consumer = client
            .consumer()
            .partitions(topic, partitions)
            .build()
            .await?;
        Ok(Box::new(HighwaterSource { consumer }))
    }

    async fn leader(&self, topic: &str, partition: u32) -> anyhow::Result<Option<usize>> {
        let client = Client::connect(&self.connection).await?;
        let described = client.admin().describe_topic(topic).await?;
        let topic = described.topic.context("the topic is missing")?;
        let found = topic
            .partitions
            .iter()
            .find(|found| found.partition == partition)
            .and_then(|found| found.leader);
        Ok(found.and_then(|id| (id as usize).checked_sub(1)))
    }
}
