//! Consumers: each reads its partitions and says how old what it reads is.

use std::sync::Arc;

use super::backend::{Backend, Received, Source};
use super::meter::Meter;
use super::payload::{meant_ns, now_ns};
use super::worker::{ConsumePlan, Stop};

/// Connects all consumers of the plan.
pub async fn connect(
    backend: &dyn Backend,
    plan: &ConsumePlan,
) -> anyhow::Result<Vec<Box<dyn Source>>> {
    let mut sources = Vec::new();
    for (topic, partitions) in &plan.consumers {
        sources.push(backend.source(topic, partitions.clone()).await?);
    }
    Ok(sources)
}

/// Reads until told to stop.
pub async fn run(
    sources: Vec<Box<dyn Source>>,
    meter: Meter,
    stop: Arc<Stop>,
) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for source in sources {
        tasks.spawn(read(source, meter.clone(), Arc::clone(&stop)));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn read(mut source: Box<dyn Source>, meter: Meter, stop: Arc<Stop>) -> anyhow::Result<()> {
    let mut records: Vec<Received> = Vec::new();
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            read = source.next(&mut records) => read?,
        }
        let now = now_ns();
        meter.count(|counters| {
            for record in &records {
                counters.received += 1;
                counters.received_bytes += record.value.len() as u64;
                if let Some(meant) = meant_ns(&record.value) {
                    let age = now.saturating_sub(meant) / 1_000;
                    counters.end_to_end.record_us(age);
                }
            }
        });
        records.clear();
    }
}
