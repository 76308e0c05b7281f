//! After everything was healed, every partition must take a record again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use highwater_checker::{Action, Function, Key, Kind, Offset};
use highwater_client::ProducerRecord;

use super::{Acknowledged, Shared, body};

/// Sends one record to every partition, each by a process of its own. Answers with what was not
/// acknowledged within `patience`.
///
/// # Errors
/// Only errors of the harness.
pub async fn liveness(shared: &Arc<Shared>, patience: Duration) -> anyhow::Result<Vec<String>> {
    let client = shared.client("liveness")?;
    let producer = client.producer().delivery_timeout(patience).build();
    let sends = (0..shared.plan.partitions).map(|partition| {
        let producer = producer.clone();
        async move {
            let (key, process) = (Key(partition), shared.recorder.new_process());
            let value = shared.fresh_value(key);
            let send = |offset| vec![Action::Send { key, value, offset }];
            let invoked_ns = shared.recorder.invoke(process, Function::Send, send(None));
            let record = ProducerRecord::to(&shared.plan.topic)
                .partition(partition)
                .value(body::encode(value, 20));
            let (kind, offset, problem) = match producer.send(record).await {
                Ok(delivery) => (Kind::Ok, Some(Offset(delivery.offset.0)), None),
                Err(error) => {
                    let kind = if error.may_be_written() {
                        Kind::Info
                    } else {
                        Kind::Fail
                    };
                    let problem = format!("partition {partition} takes nothing: {error}");
                    (kind, None, Some(problem))
                }
            };
            let at_ns = shared
                .recorder
                .complete(kind, process, Function::Send, send(offset));
            if let Some(offset) = offset {
                shared.acknowledge(Acknowledged {
                    partition,
                    offset: offset.0,
                    invoked_ns,
                    at_ns,
                });
            }
            problem
        }
    });
    Ok(join_all(sends).await.into_iter().flatten().collect())
}
