//! A writer: sends one to four records at a time, to any partitions, and waits for all outcomes.

use std::sync::Arc;

use futures_util::future::join_all;
use highwater_checker::{Action, Function, Key, Kind, Offset, Value};
use highwater_client::{Client, Delivery, Producer, ProducerRecord, SendError};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{Acknowledged, DELIVERY, Shared, body};

/// One record in this many is large.
const LARGE_ONE_IN: u32 = 200;

/// Runs until `stop`; ends its last operation first.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: u32,
    rate: f64,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut random = shared.random(number.into());
    let client = shared.client(&format!("producer-{number}"))?;
    let start = |client: &Client| client.producer().delivery_timeout(DELIVERY).build();
    let mut producer = start(&client);
    let mut process = shared.recorder.new_process();
    let mut pace = Pace::new(rate);
    while pace.wait(&mut random, &stop).await {
        let records = choose(&shared, &mut random);
        let invoked = shared
            .recorder
            .invoke(process, Function::Send, actions(&records, &[]));
        let outcomes = send(&shared, &producer, &records, invoked, &mut random).await;
        let kind = kind_of(&outcomes);
        let ended = actions(&records, &outcomes);
        shared
            .recorder
            .complete(kind, process, Function::Send, ended);
        if kind == Kind::Info {
            // What it sent may still be stored, whenever: whoever goes on is somebody else.
            process = shared.recorder.new_process();
            if random.random_bool(0.5) {
                producer = start(&client);
            }
        }
    }
    Ok(())
}

fn choose(shared: &Shared, random: &mut StdRng) -> Vec<(Key, Value)> {
    let count = random.random_range(1..=4);
    // Half of the time all go to one partition: their order is then part of what is checked.
    let common = random
        .random_bool(0.5)
        .then(|| random.random_range(0..shared.plan.partitions));
    let mut pick = || {
        let key = common.unwrap_or_else(|| random.random_range(0..shared.plan.partitions));
        (Key(key), shared.fresh_value(Key(key)))
    };
    (0..count).map(|_| pick()).collect()
}

type Outcome = Result<Delivery, SendError>;

fn actions(records: &[(Key, Value)], outcomes: &[Outcome]) -> Vec<Action> {
    let offset = |place: usize| match outcomes.get(place) {
        Some(Ok(delivery)) => Some(Offset(delivery.offset.0)),
        _ => None,
    };
    let send = |(place, (key, value)): (usize, &(Key, Value))| Action::Send {
        key: *key,
        value: *value,
        offset: offset(place),
    };
    records.iter().enumerate().map(send).collect()
}

/// An operation failed only when not one of its records can ever be stored.
fn kind_of(outcomes: &[Outcome]) -> Kind {
    if outcomes.iter().all(Result::is_ok) {
        Kind::Ok
    } else if outcomes
        .iter()
        .all(|o| matches!(o, Err(SendError::Rejected(_))))
    {
        Kind::Fail
    } else {
        Kind::Info
    }
}

/// Hands all records over in order, then waits for all of them.
async fn send(
    shared: &Shared,
    producer: &Producer,
    records: &[(Key, Value)],
    invoked_ns: u64,
    random: &mut StdRng,
) -> Vec<Outcome> {
    let mut waiting = Vec::with_capacity(records.len());
    for (key, value) in records {
        let filling = match random.random_range(0..LARGE_ONE_IN) {
            0 => 64 << 10,
            _ => random.random_range(0..400),
        };
        let record = ProducerRecord::to(&shared.plan.topic)
            .partition(key.0)
            .value(body::encode(*value, filling));
        waiting.push((key.0, producer.enqueue(record).await));
    }
    let ends = waiting.into_iter().map(|(partition, enqueued)| async move {
        let outcome = match enqueued {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        if let Ok(delivery) = &outcome {
            shared.acknowledge(Acknowledged {
                partition,
                offset: delivery.offset.0,
                invoked_ns,
                at_ns: shared.recorder.now_ns(),
            });
        }
        outcome
    });
    join_all(ends).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{Cause, PartitionId, TimestampMs, TopicId};

    #[test]
    fn an_operation_fails_only_when_nothing_of_it_can_be_stored() {
        let stored = || {
            Ok(Delivery {
                topic: TopicId(1),
                partition: PartitionId(0),
                offset: highwater_client::Offset(7),
                timestamp: TimestampMs(0),
                duplicate: false,
            })
        };
        let rejected = || Err(SendError::Rejected(Cause::Closed));
        let unknown = || Err(SendError::Unknown(Cause::Closed));
        assert_eq!(kind_of(&[stored(), stored()]), Kind::Ok);
        assert_eq!(kind_of(&[rejected(), rejected()]), Kind::Fail);
        assert_eq!(kind_of(&[rejected(), stored()]), Kind::Info);
        assert_eq!(kind_of(&[unknown()]), Kind::Info);
    }
}
