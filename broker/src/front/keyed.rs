//! Step 1 of a produced record, for topics that are compacted: every record needs a key, since the
//! latest of each key is what is kept. The one place of the broker that decodes records on their way
//! in; compressed ones are decompressed, by so many requests at a time that memory has a bound.

use highwater_proto::TopicPartition;
use highwater_proto::batch::{BatchError, Compression, DecodeLimits, RecordBatch};
use highwater_proto::v1::{BatchResult, ErrorCode};
use tokio::sync::Semaphore;

use super::convert;

/// Batches that are decompressed at the same time; each may take as much as a decoder allows.
static DECOMPRESSING: Semaphore = Semaphore::const_new(2);

/// Rejects a batch that has a record without a key, or that cannot be decoded. Cancellation-safe.
pub(super) async fn check(tp: TopicPartition, batch: &RecordBatch) -> Result<(), BatchResult> {
    let is_compressed = batch.header().attributes.compression() != Compression::None;
    // Never closed.
    let _turn = match is_compressed {
        true => DECOMPRESSING.acquire().await.ok(),
        false => None,
    };
    match first_without_key(batch) {
        Ok(None) => Ok(()),
        Ok(Some(number)) => {
            let text = format!(
                "record {number} of a batch for {tp} has no key: the topic is compacted \
                 (cleanup.policy), so every record needs one"
            );
            Err(convert::rejected(ErrorCode::InvalidRecord, text))
        }
        Err(error) => Err(convert::bad_batch(tp, &error)),
    }
}

fn first_without_key(batch: &RecordBatch) -> Result<Option<usize>, BatchError> {
    for (number, record) in batch.records(&DecodeLimits::default())?.enumerate() {
        if record?.key.is_none() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use highwater_proto::batch::BatchBuilder;
    use highwater_proto::{PartitionId, TimestampMs, TopicId};

    use super::*;

    fn batch(compression: Compression, keys: &[Option<&[u8]>]) -> RecordBatch {
        let mut builder = BatchBuilder::new(compression);
        for key in keys {
            let none: [(&[u8], Option<&[u8]>); 0] = [];
            let added = builder.append(TimestampMs(1), *key, Some(b"value"), none);
            added.expect("fits");
        }
        RecordBatch::validate(builder.build(), usize::MAX).expect("valid")
    }

    #[tokio::test]
    async fn every_record_needs_a_key_and_an_empty_one_is_one() {
        let tp = TopicPartition::new(TopicId(1), PartitionId(0));
        for compression in [Compression::None, Compression::Lz4] {
            let good = batch(compression, &[Some(b"a"), Some(b"")]);
            assert_eq!(check(tp, &good).await, Ok(()));
            let bad = batch(compression, &[Some(b"a"), None]);
            let refused = check(tp, &bad).await.expect_err("no key");
            let error = refused.error.expect("an error");
            assert_eq!(error.code, i32::from(ErrorCode::InvalidRecord));
            assert!(error.message.contains("record 1"), "{}", error.message);
        }
    }
}
