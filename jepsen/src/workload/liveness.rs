//! After everything was healed, every partition must take a record again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Shared, one_record};

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
            let process = shared.recorder.new_process();
            let sent = one_record::send(shared, &producer, process, partition).await;
            let problem = |error| format!("partition {partition} takes nothing: {error}");
            sent.err().map(problem)
        }
    });
    Ok(join_all(sends).await.into_iter().flatten().collect())
}
