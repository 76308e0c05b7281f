//! Sends a thousand records and prints where the last one lies.
//!
//! `cargo run -p highwater-client --example produce -- highwater://localhost:9094 orders`

use std::time::Duration;

use highwater_client::{Client, Compression, ProducerRecord, SendError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let brokers = args
        .next()
        .unwrap_or_else(|| "highwater://localhost:9094".to_owned());
    let topic = args.next().unwrap_or_else(|| "orders".to_owned());

    let client = Client::connect(&brokers).await?;
    let producer = client
        .producer()
        .linger(Duration::from_millis(5))
        .compression(Compression::Zstd)
        .delivery_timeout(Duration::from_secs(20))
        .build();

    let mut acks = Vec::new();
    for number in 0..1_000 {
        let record = ProducerRecord::to(topic.clone())
            .key(format!("order-{}", number % 50))
            .value(format!("line {number}"))
            .header("source", "example");
        // Waits while the buffer is full; the outcome comes later.
        acks.push(producer.enqueue(record).await?);
    }
    let mut last = None;
    for ack in acks {
        match ack.await {
            Ok(delivery) => last = Some(delivery),
            Err(SendError::Rejected(cause)) => println!("not stored, send it again: {cause}"),
            Err(SendError::Unknown(cause)) => println!("look before sending it again: {cause}"),
        }
    }
    if let Some(delivery) = last {
        println!(
            "the last one: partition {} offset {}",
            delivery.partition, delivery.offset
        );
    }
    producer.close().await;
    Ok(())
}
