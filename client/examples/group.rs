//! A member of a consumer group: start it several times, and the partitions are shared.
//!
//! `cargo run -p highwater-client --example group -- highwater://localhost:9094 billing orders`

use highwater_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let (brokers, group, topic) = (
        next("highwater://localhost:9094"),
        next("billing"),
        next("orders"),
    );

    let client = Client::connect(&brokers).await?;
    let worker = client.group(group).topic(topic).run(|record| async move {
        // Keys side by side, in order within a key. An error is retried, then the record goes to
        // the dead letter queue.
        let text = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?;
        println!(
            "{}-{} @{} {text}",
            record.topic, record.partition, record.offset
        );
        Ok(())
    })?;
    tokio::signal::ctrl_c().await?;
    worker.stop().await?; // finishes, commits, leaves
    Ok(())
}
