//! One record at a time, sent by a process of the history: to see whether a partition takes it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process};
use highwater_client::{At, Client, PartitionId, Producer, ProducerRecord, SendError, Start};
use tokio::time::timeout;

use super::{Acknowledged, Shared, body};

/// How long a partition may take to take a record, or to give one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends one record, and records that.
pub(super) async fn send(
    shared: &Shared,
    producer: &Producer,
    process: Process,
    partition: u32,
) -> Result<(), SendError> {
    let key = Key(partition);
    let value = shared.fresh_value(key);
    let action = |offset| vec![Action::Send { key, value, offset }];
    let invoked_ns = shared
        .recorder
        .invoke(process, Function::Send, action(None));
    let record = ProducerRecord::to(&shared.plan.topic)
        .partition(partition)
        .value(body::encode(value, 20));
    let sent = producer.send(record).await;
    let (kind, offset) = match &sent {
        Ok(delivery) => (Kind::Ok, Some(Offset(delivery.offset.0))),
        Err(error) if error.may_be_written() => (Kind::Info, None),
        Err(_) => (Kind::Fail, None),
    };
    let at_ns = shared
        .recorder
        .complete(kind, process, Function::Send, action(offset));
    if let Some(offset) = offset {
        shared.acknowledge(Acknowledged {
            partition,
            offset: offset.0,
            invoked_ns,
            at_ns,
        });
    }
    sent.map(drop)
}

/// Sends to a partition and reads from it, one record each time.
pub struct Prober {
    shared: Arc<Shared>,
    client: Client,
    producer: Producer,
    process: Process,
}

impl Prober {
    /// With connections of its own.
    ///
    /// # Errors
    /// When the addresses are no addresses.
    pub fn new(shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let client = shared.client("prober")?;
        let producer = client.producer().delivery_timeout(PATIENCE).build();
        Ok(Self {
            shared: Arc::clone(shared),
            client,
            producer,
            process: shared.recorder.new_process(),
        })
    }

    /// Sends one record.
    ///
    /// # Errors
    /// Why it was not acknowledged, in the last words of whoever was asked.
    pub async fn send(&mut self, partition: u32) -> Result<(), SendError> {
        let sent = send(&self.shared, &self.producer, self.process, partition).await;
        if sent.as_ref().is_err_and(SendError::may_be_written) {
            self.process = self.shared.recorder.new_process();
        }
        sent
    }

    /// Reads the last record of a partition that has one.
    ///
    /// # Errors
    /// Why none came.
    pub async fn read(&self, partition: u32) -> anyhow::Result<()> {
        let topic = &self.shared.plan.topic;
        let ends = self
            .client
            .list_offsets(topic, &[(PartitionId(partition), At::Latest)])
            .await?;
        let end = ends.first().context("no end")?.offset.0;
        let Some(last) = end.checked_sub(1) else {
            return Ok(());
        };
        let start = Start::Offset(highwater_client::Offset(last));
        let consumer = self.client.consumer().assign(topic, partition, start);
        let mut consumer = consumer.build().await?;
        let next = timeout(PATIENCE, consumer.next()).await;
        next.context("nothing came")?.context("it ended")??;
        Ok(())
    }
}
