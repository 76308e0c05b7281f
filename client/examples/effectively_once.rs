//! Reads one topic, writes another, and after a crash goes on without losing or repeating a
//! result: the recipe without transactions.
//!
//! Every result carries the offset of the record it was made of, and goes to the partition of the
//! same number. On start, the last result of each output partition says where to go on. This
//! holds while one instance at a time works on a partition.
//!
//! `cargo run -p highwater-client --example effectively_once -- highwater://localhost:9094 in out`

use futures_util::StreamExt;
use highwater_client::{Client, ConsumedRecord, Offset, ProducerRecord, Start};

const SOURCE: &str = "source-offset";

/// The offset of the record that a result was made of.
fn source(result: &ConsumedRecord) -> Option<u64> {
    std::str::from_utf8(result.header(SOURCE)?)
        .ok()?
        .parse()
        .ok()
}

/// Where to go on in `partition`: after the source of the last result.
async fn resume(
    client: &Client,
    output: &str,
    partition: u32,
) -> Result<Start, Box<dyn std::error::Error>> {
    let ends = client.end_offsets(output).await?;
    let end = usize::try_from(partition)
        .ok()
        .and_then(|p| ends.get(p))
        .copied();
    if end.is_none_or(|end| end.0 == 0) {
        return Ok(Start::Earliest);
    }
    let mut last = client
        .consumer()
        .assign(output, partition, Start::BeforeLatest(1))
        .build()
        .await?;
    match last.next().await {
        Some(result) => {
            let offset = source(&result?).ok_or("the last result does not name its source")?;
            Ok(Start::Offset(Offset(offset + 1)))
        }
        None => Ok(Start::Earliest),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let brokers = args
        .next()
        .unwrap_or_else(|| "highwater://localhost:9094".to_owned());
    let input = args.next().unwrap_or_else(|| "in".to_owned());
    let output = args.next().unwrap_or_else(|| "out".to_owned());

    let client = Client::connect(&brokers).await?;
    let mut builder = client.consumer();
    for partition in 0..client.topic(&input).await?.partition_count() {
        builder = builder.assign(
            &input,
            partition,
            resume(&client, &output, partition).await?,
        );
    }
    let mut records = builder.build().await?;
    let producer = client.producer().build();
    while let Some(record) = records.next().await {
        let record = record?;
        let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        let result = ProducerRecord::to(output.clone())
            .partition(record.partition.0)
            .key(record.key.clone().unwrap_or_default())
            .value(text.to_uppercase())
            .header(SOURCE, record.offset.to_string());
        // One at a time: nothing is handed over behind a result whose outcome is not known. Any
        // error ends the program; the next start looks at what is there.
        producer.send(result).await?;
    }
    Ok(())
}
