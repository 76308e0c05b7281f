//! Turns a closed batch into bytes: built once, kept for every further attempt.

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs};
use parking_lot::Mutex;

use super::machine::Identity;
use crate::error::Cause;
use crate::record::ProducerRecord;

/// A batch on its way to bytes.
#[derive(Debug)]
pub(crate) struct Encodable(Mutex<Form>);

#[derive(Debug)]
enum Form {
    Records(Vec<(TimestampMs, ProducerRecord)>),
    Built {
        identity: Identity,
        sequence: u32,
        bytes: Bytes,
    },
}

impl Encodable {
    pub(crate) fn new(records: Vec<(TimestampMs, ProducerRecord)>) -> Self {
        Self(Mutex::new(Form::Records(records)))
    }

    /// The batch under these numbers. The records are let go once they are encoded; other numbers
    /// later (a new epoch) are written into a copy.
    pub(crate) fn encode(
        &self,
        compression: Compression,
        identity: Identity,
        sequence: u32,
    ) -> Result<Bytes, Cause> {
        let mut form = self.0.lock();
        let bytes = match &*form {
            Form::Records(records) => build(compression, identity, sequence, records)?,
            Form::Built {
                identity: same,
                sequence: at,
                bytes,
            } if *same == identity && *at == sequence => {
                return Ok(bytes.clone());
            }
            Form::Built { bytes, .. } => renumber(bytes.clone(), identity, sequence)?,
        };
        *form = Form::Built {
            identity,
            sequence,
            bytes: bytes.clone(),
        };
        Ok(bytes)
    }
}

fn build(
    compression: Compression,
    identity: Identity,
    sequence: u32,
    records: &[(TimestampMs, ProducerRecord)],
) -> Result<Bytes, Cause> {
    let bytes = records.iter().map(|(_, record)| record.size_bytes()).sum();
    let mut builder = BatchBuilder::with_capacity(compression, bytes).producer(
        ProducerId(identity.id),
        ProducerEpoch(identity.epoch),
        BatchSequence(sequence),
    );
    for (timestamp, record) in records {
        let headers = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_deref()));
        builder
            .append(
                *timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                headers,
            )
            .map_err(|error| Cause::Encoding(error.to_string()))?;
    }
    Ok(builder.build())
}

fn renumber(bytes: Bytes, identity: Identity, sequence: u32) -> Result<Bytes, Cause> {
    let batch =
        RecordBatch::validate_stored(bytes).map_err(|error| Cause::Encoding(error.to_string()))?;
    let (id, epoch) = (ProducerId(identity.id), ProducerEpoch(identity.epoch));
    Ok(batch
        .with_producer(id, epoch, BatchSequence(sequence))
        .into_bytes())
}
