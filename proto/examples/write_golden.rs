//! Writes the golden batches that are ours, and the fuzz corpus out of all golden batches.
//!
//! `cargo run -p highwater-proto --example write_golden`, then let Kafka's client read them: see
//! `proto/golden/generate/README.md`.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression, DecodeLimits, RecordBatch, split_batches};
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs};

/// Seeds of more bytes make fuzzing slow.
const MAX_SEED: u64 = 4096;

fn main() -> io::Result<()> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = proto.join("golden");
    let mixed = Bytes::from(fs::read(golden.join("kafka-mixed-none.bin"))?);
    for compression in Compression::ALL {
        let name = |kind: &str| golden.join(format!("highwater-{kind}-{compression}.bin"));
        fs::write(name("mixed"), mixed_batch(compression, &mixed)?)?;
        if compression != Compression::None {
            fs::write(name("large"), large_batch(compression)?)?;
        }
    }
    let timed = RecordBatch::validate(mixed, usize::MAX).map_err(io::Error::other)?;
    let timed = timed.with_log_append_time(TimestampMs(1_800_000_000_000));
    fs::write(golden.join("highwater-append-time.bin"), timed.bytes())?;
    fs::write(golden.join("highwater-transactional.bin"), transactional()?)?;
    write_corpus(&golden, &proto.join("fuzz/corpus"))
}

/// The records of Kafka's mixed batch, under another compression.
fn mixed_batch(compression: Compression, from: &Bytes) -> io::Result<Bytes> {
    let mut builder = BatchBuilder::new(compression);
    for batch in split_batches(from.clone()) {
        let batch = batch.map_err(io::Error::other)?;
        for record in batch
            .records(&DecodeLimits::default())
            .map_err(io::Error::other)?
        {
            let record = record.map_err(io::Error::other)?;
            builder.append_record(&record).map_err(io::Error::other)?;
        }
    }
    Ok(builder.build())
}

/// More than one block of every compression.
fn large_batch(compression: Compression) -> io::Result<Bytes> {
    let mut builder = BatchBuilder::new(compression);
    for number in 0..4000u64 {
        let key = format!("order-{number}");
        let total = number * 104_729 % 99_991;
        let value = format!("{{\"order\":{number},\"state\":\"priced\",\"total_cents\":{total}}}");
        let time = TimestampMs(1_700_000_000_000 + number.cast_signed());
        builder
            .append(time, Some(key.as_bytes()), Some(value.as_bytes()), [])
            .map_err(io::Error::other)?;
    }
    Ok(builder.build())
}

fn transactional() -> io::Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::Zstd)
        .producer(ProducerId(4712), ProducerEpoch(2), BatchSequence(9))
        .transactional();
    let headers = [(&b"trace"[..], None), (b"trace", Some(&b"1"[..]))];
    builder
        .append(TimestampMs(1_700_000_000_000), Some(b"key"), None, headers)
        .map_err(io::Error::other)?;
    Ok(builder.build())
}

fn write_corpus(golden: &Path, corpus: &Path) -> io::Result<()> {
    let mut batches = Vec::new();
    let mut names: Vec<_> = fs::read_dir(golden)?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".bin") && entry.metadata()?.len() <= MAX_SEED {
            batches.push((name.replace(".bin", ""), fs::read(entry.path())?));
        }
    }
    for target in ["validate", "records", "split", "decompress"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    for (name, bytes) in &batches {
        fs::write(corpus.join("validate").join(name), bytes)?;
        fs::write(corpus.join("records").join(name), bytes)?;
        let attributes = bytes.get(22).copied().unwrap_or_default();
        let mut thin = vec![attributes & 7];
        thin.extend_from_slice(bytes.get(61..).unwrap_or_default());
        fs::write(corpus.join("decompress").join(name), thin)?;
    }
    for (number, some) in batches.chunks(3).enumerate() {
        let region: Vec<u8> = some.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        fs::write(
            corpus.join("split").join(format!("region-{number}")),
            region,
        )?;
    }
    Ok(())
}
