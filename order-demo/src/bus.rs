//! The brokers as the harness needs them: topics, reads to the end, who leads what.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::Stream;
use highwater_client::{
    Ack, Client, Consumer, Delivery, NewTopic, NodeId, Offset, Producer, ProducerRecord, ReadFrom,
    SendError, Start,
};

use crate::evidence::{Observed, Source};

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// On the disks of a majority, at this place.
    Acknowledged(Source),
    /// Certainly not written; why.
    Refused(String),
    /// May or may not be written; why.
    Unknown(String),
}

/// Who serves a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The partition.
    pub partition: u32,
    /// Partitions of one shard share their leader.
    pub shard: u32,
    /// The leading broker; none during an election.
    pub leader: Option<u32>,
}

/// From handing a record over to its outcome. Longer than any failover, so that an outcome stays
/// unknown only when the cluster is really gone.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// A cluster, by its client.
#[derive(Debug, Clone)]
pub struct ClientBus {
    client: Client,
}

impl ClientBus {
    /// Connects to the brokers at these addresses, `host:port` each. Cancellation-safe.
    ///
    /// # Errors
    /// When none of them answers.
    pub async fn connect(addresses: &[String]) -> anyhow::Result<Self> {
        let client = Client::builder()
            .brokers(addresses.iter().cloned())
            .client_id("highwater-order-demo")
            .connect()
            .await?;
        Ok(Self { client })
    }

    /// The client beneath.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Creates a topic and returns when it can be written to. Not cancellation-safe.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        replication: u32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut new = NewTopic::named(topic)
            .partitions(partitions)
            .replication_factor(replication);
        for (key, value) in configs {
            new = new.config(*key, *value);
        }
        let created = self
            .client
            .admin()
            .timeout(DELIVERY_TIMEOUT)
            .create_topic(new)
            .await;
        created.with_context(|| format!("cannot create the topic {topic}"))?;
        Ok(())
    }

    /// A new idempotent producer.
    #[must_use]
    pub fn sender(&self) -> ClientSender {
        let builder = self.client.producer().delivery_timeout(DELIVERY_TIMEOUT);
        ClientSender {
            producer: builder.build(),
        }
    }

    /// Reads each partition named from its offset on; from the leaders, or from one broker's own
    /// copies. Cancellation-safe.
    ///
    /// # Errors
    /// When it cannot begin.
    pub async fn read(
        &self,
        topic: &str,
        from: &BTreeMap<u32, u64>,
        broker: Option<u32>,
    ) -> anyhow::Result<ClientRecords> {
        let mut consumer = self.client.consumer();
        if let Some(broker) = broker {
            consumer = consumer.read_from(ReadFrom::Broker(NodeId(broker)));
        }
        for (partition, offset) in from {
            consumer = consumer.assign(topic, *partition, Start::Offset(Offset(*offset)));
        }
        Ok(ClientRecords {
            consumer: consumer.build().await?,
        })
    }

    /// The end of every partition: past everything acknowledged before the call. Cancellation-safe.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub async fn ends(&self, topic: &str) -> anyhow::Result<BTreeMap<u32, u64>> {
        let ends = self.client.end_offsets(topic).await?;
        Ok((0..)
            .zip(ends)
            .map(|(partition, end)| (partition, end.0))
            .collect())
    }

    /// Who leads each partition now, as far as known. Cancellation-safe.
    ///
    /// # Errors
    /// When the topic is not known.
    pub async fn placement(&self, topic: &str) -> anyhow::Result<Vec<Placement>> {
        let view = self.client.topic(topic).await?;
        let place = |(partition, view): (u32, &highwater_client::PartitionView)| Placement {
            partition,
            shard: view.shard,
            leader: view.leader.map(|leader| leader.0),
        };
        Ok((0..).zip(&view.partitions).map(place).collect())
    }
}

/// A producer of the client.
#[derive(Clone)]
pub struct ClientSender {
    producer: Producer,
}

impl ClientSender {
    /// Takes a record for this partition over; waits while too much is in flight.
    ///
    /// # Errors
    /// How the send ended, when it was not even begun.
    pub async fn enqueue(
        &self,
        topic: &str,
        partition: u32,
        value: Vec<u8>,
    ) -> Result<ClientEnded, Outcome> {
        let record = ProducerRecord::to(topic).partition(partition).value(value);
        match self.producer.enqueue(record).await {
            Ok(ack) => Ok(ClientEnded { ack }),
            Err(error) => Err(outcome(Err(error))),
        }
    }
}

fn outcome(sent: Result<Delivery, SendError>) -> Outcome {
    match sent {
        Ok(Delivery {
            partition, offset, ..
        }) => Outcome::Acknowledged(Source {
            partition: partition.0,
            offset: offset.0,
        }),
        Err(SendError::Rejected(cause)) => Outcome::Refused(cause.to_string()),
        Err(SendError::Unknown(cause)) => Outcome::Unknown(cause.to_string()),
    }
}

/// The end of one send.
pub struct ClientEnded {
    ack: Ack,
}

impl Future for ClientEnded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.ack).poll(context).map(outcome)
    }
}

/// Records of a consumer of the client.
pub struct ClientRecords {
    consumer: Consumer,
}

impl Stream for ClientRecords {
    type Item = anyhow::Result<Observed>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.consumer).poll_next(context).map(|next| {
            next.map(|record| {
                let record = record?;
                let bytes = |part: Option<bytes::Bytes>| part.unwrap_or_default().to_vec();
                let header = |(name, value): (String, Option<bytes::Bytes>)| {
                    (name, value.map(|value| value.to_vec()))
                };
                Ok(Observed {
                    at: Source {
                        partition: record.partition.0,
                        offset: record.offset.0,
                    },
                    key: bytes(record.key),
                    value: bytes(record.value),
                    timestamp_ms: record.timestamp.0,
                    headers: record.headers.into_iter().map(header).collect(),
                })
            })
        })
    }
}
