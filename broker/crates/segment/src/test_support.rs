//! Batches and directories for the tests of this crate.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use highwater_env::{Disk, OsDisk};
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};
use highwater_proto::{
    LeaderEpoch, Offset, PartitionId, ShardId, TimestampMs, TopicId, TopicPartition,
};

use crate::{
    AppendBatch, FileCache, FileCacheConfig, LogIdentity, PartitionLog, SegmentConfig,
    partition_dir,
};

pub(crate) const SHARD: ShardId = ShardId(7);

pub(crate) fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(3), PartitionId(partition))
}

pub(crate) fn owner(partition: u32) -> LogIdentity {
    LogIdentity {
        shard: SHARD,
        partition: tp(partition),
        arrival: 0,
    }
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// An uncompressed batch with one record for each timestamp; each value has `value_len` bytes.
pub(crate) fn batch(base: u64, timestamps: &[i64], value_len: usize) -> AppendBatch {
    let first = timestamps[0];
    let mut records = Vec::new();
    for (delta, timestamp) in timestamps.iter().enumerate() {
        let mut record = vec![0];
        put_varint(&mut record, timestamp - first);
        put_varint(&mut record, delta as i64);
        put_varint(&mut record, -1);
        put_varint(&mut record, value_len as i64);
        record.extend((0..value_len).map(|i| (i as u64 * 31 + base) as u8));
        put_varint(&mut record, 0);
        put_varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let max = timestamps.iter().copied().max().unwrap_or(0);
    let mut checked = Vec::new();
    checked.put_i16(0);
    checked.put_i32(timestamps.len() as i32 - 1);
    checked.put_i64(first);
    checked.put_i64(max);
    checked.put_i64(-1);
    checked.put_i16(-1);
    checked.put_i32(-1);
    checked.put_i32(timestamps.len() as i32);
    checked.extend(records);
    let mut whole = Vec::new();
    whole.put_u64(base);
    whole.put_i32((checked.len() + 9) as i32);
    whole.put_i32(1);
    whole.put_u8(2);
    whole.put_u32(crc32c::crc32c(&checked));
    whole.extend(checked);
    AppendBatch {
        head: whole[..16].try_into().expect("16 bytes"),
        body: Bytes::from(whole).slice(16..),
        base_offset: Offset(base),
        last_offset: Offset(base + timestamps.len() as u64 - 1),
        max_timestamp: TimestampMs(max),
        append_time: TimestampMs(max),
        new_segment: false,
    }
}

/// A record of a keyed batch: key and value, each of which may be missing.
pub(crate) type Keyed<'a> = (Option<&'a str>, Option<&'a str>);

/// A batch of such records, appended at `time`.
pub(crate) fn keyed(
    base: u64,
    time: i64,
    compression: Compression,
    records: &[Keyed<'_>],
) -> AppendBatch {
    let mut builder = BatchBuilder::new(compression);
    for (key, value) in records {
        let none: [(&[u8], Option<&[u8]>); 0] = [];
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        let added = builder.append(TimestampMs(time), key, value, none);
        added.expect("fits");
    }
    let batch = RecordBatch::validate(builder.build(), usize::MAX).expect("valid");
    let stamped = batch.stamp(Offset(base), LeaderEpoch(1));
    AppendBatch {
        head: stamped.head,
        body: stamped.body,
        base_offset: Offset(base),
        last_offset: Offset(base + records.len() as u64 - 1),
        max_timestamp: TimestampMs(time),
        append_time: TimestampMs(time),
        new_segment: false,
    }
}

pub(crate) fn stored(batch: &AppendBatch) -> Vec<u8> {
    [&batch.head[..], &batch.body].concat()
}

/// Batches of two records each, one after the other, with rising timestamps 10 apart.
pub(crate) fn run(count: u64, value_len: usize) -> Vec<AppendBatch> {
    (0..count)
        .map(|i| {
            let at = 1_000 + i as i64 * 20;
            batch(i * 2, &[at, at + 10], value_len)
        })
        .collect()
}

pub(crate) fn config() -> SegmentConfig {
    SegmentConfig {
        index_interval_bytes: 256,
        preallocate_min: 512,
        preallocate_max: 4096,
    }
}

/// A directory with a file cache; removed when dropped.
pub(crate) struct Fixture {
    pub dir: tempfile::TempDir,
    pub files: Arc<FileCache<OsDisk>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            dir,
            files: cache(OsDisk),
        }
    }
    pub(crate) fn path(&self, partition: u32) -> PathBuf {
        partition_dir(self.dir.path(), (tp(partition), 0))
    }
    pub(crate) fn create(&self, partition: u32) -> PartitionLog<OsDisk> {
        PartitionLog::create(
            &self.files,
            owner(partition),
            &self.path(partition),
            config(),
        )
    }
    /// The log after a restart: new cache, nothing in memory.
    pub(crate) fn reopen(&self, manifest: &crate::PartitionManifest) -> PartitionLog<OsDisk> {
        PartitionLog::open(&cache(OsDisk), owner(0), &self.path(0), manifest, config())
            .expect("a valid manifest")
    }
}

pub(crate) fn cache<D: Disk>(disk: D) -> Arc<FileCache<D>> {
    FileCache::new(
        disk,
        FileCacheConfig::default(),
        Arc::new(|fault| panic!("{fault}")),
    )
}
