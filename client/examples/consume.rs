//! Prints the last ten records of each partition, then follows.
//!
//! `cargo run -p highwater-client --example consume -- highwater://localhost:9094 orders`

use futures_util::StreamExt;
use highwater_client::{Client, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let brokers = args
        .next()
        .unwrap_or_else(|| "highwater://localhost:9094".to_owned());
    let topic = args.next().unwrap_or_else(|| "orders".to_owned());

    let client = Client::connect(&brokers).await?;
    let mut consumer = client
        .consumer()
        .topic(&topic)
        .start_at(Start::BeforeLatest(10))
        .build()
        .await?;
    while let Some(record) = consumer.next().await {
        match record {
            Ok(record) => println!(
                "{}-{} @{} {}",
                record.topic,
                record.partition,
                record.offset,
                String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()),
            ),
            // One partition stands still until a seek; the others go on.
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
