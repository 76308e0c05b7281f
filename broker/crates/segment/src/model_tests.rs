//! Random lives of a partition against a model: appends, rolls, trims, checkpoints, and crashes
//! after which nothing beyond the last durable manifest can be relied on.

use std::fs;
use std::path::Path;

use highwater_env::OsDisk;
use highwater_proto::{Offset, TimestampMs};
use proptest::prelude::*;

use crate::layout::parse_segment_file;
use crate::test_support::{Fixture, batch, stored};
use crate::{AppendBatch, PartitionLog, PartitionManifest, PartitionReader, ReadError};

const ALL: Offset = Offset(u64::MAX);

#[derive(Debug, Clone)]
enum Step {
    Append {
        timestamps: Vec<i64>,
        value_len: usize,
        new_segment: bool,
    },
    Trim {
        part: u8,
    },
    Checkpoint,
    Crash {
        seed: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let append = (
        prop::collection::vec(0i64..500, 1..5),
        0usize..300,
        prop::bool::weighted(0.15),
    );
    prop_oneof![
        12 => append.prop_map(|(timestamps, value_len, new_segment)| Step::Append {
            timestamps,
            value_len,
            new_segment,
        }),
        1 => any::<u8>().prop_map(|part| Step::Trim { part }),
        2 => Just(Step::Checkpoint),
        1 => any::<u8>().prop_map(|seed| Step::Crash { seed }),
    ]
}

/// What was decided, in order: the write-ahead log that a crash does not touch.
#[derive(Debug, Clone)]
enum Decided {
    Batch(AppendBatch),
    Trim(Offset),
}

struct Life {
    fixture: Fixture,
    log: PartitionLog<OsDisk>,
    decided: Vec<Decided>,
    /// The durable manifest, and how much of `decided` it covers.
    durable: (PartitionManifest, usize),
}

impl Life {
    fn new() -> Self {
        let fixture = Fixture::new();
        let log = fixture.create(0);
        Self {
            fixture,
            log,
            decided: Vec::new(),
            durable: Default::default(),
        }
    }
    fn batches(&self) -> impl Iterator<Item = &AppendBatch> {
        self.decided.iter().filter_map(|decided| match decided {
            Decided::Batch(batch) => Some(batch),
            Decided::Trim(_) => None,
        })
    }
    fn log_start(&self) -> Offset {
        let trim = |decided: &Decided| match decided {
            Decided::Trim(offset) => Some(*offset),
            Decided::Batch(_) => None,
        };
        self.decided
            .iter()
            .filter_map(trim)
            .max()
            .unwrap_or_default()
    }
    fn end(&self) -> u64 {
        self.batches()
            .last()
            .map_or(0, |batch| batch.last_offset.0 + 1)
    }
    fn apply(log: &mut PartitionLog<OsDisk>, decided: &Decided) {
        match decided {
            Decided::Batch(batch) => log.append(batch).expect("append"),
            Decided::Trim(offset) => log.set_log_start(*offset),
        }
    }
    fn decide(&mut self, decided: Decided) {
        Self::apply(&mut self.log, &decided);
        self.decided.push(decided);
    }
    fn take(&mut self, step: Step) {
        match step {
            Step::Append {
                timestamps,
                value_len,
                new_segment,
            } => {
                let batch = batch(self.end(), &timestamps, value_len);
                self.decide(Decided::Batch(AppendBatch {
                    new_segment,
                    ..batch
                }));
            }
            Step::Trim { part } => {
                self.decide(Decided::Trim(Offset(self.end() * u64::from(part) / 255)));
            }
            Step::Checkpoint => self.checkpoint(),
            Step::Crash { seed } => self.crash(seed),
        }
    }
    fn checkpoint(&mut self) {
        let manifest = self.log.freeze();
        self.log.sync_dirty().expect("sync");
        self.durable = (manifest, self.decided.len());
        for path in self.log.take_unlinkable(&self.durable.0) {
            // Index files may not exist.
            let _ = fs::remove_file(path);
        }
    }
    /// Spoils everything that the durable manifest does not promise, then recovers.
    fn crash(&mut self, seed: u8) {
        let dir = self.fixture.path(0);
        let (manifest, covered) = &self.durable;
        if dir.exists() {
            for (i, entry) in fs::read_dir(&dir).expect("list").enumerate() {
                let path = entry.expect("entry").path();
                spoil(&path, manifest, seed.wrapping_mul(31).wrapping_add(i as u8));
            }
        }
        self.log = self.fixture.reopen(manifest);
        self.log
            .check_files()
            .expect("what the manifest names is there");
        if seed.is_multiple_of(3) {
            self.log.remove_orphans(manifest).expect("remove orphans");
        }
        for decided in &self.decided[*covered..] {
            Self::apply(&mut self.log, decided);
        }
    }
    fn check(&self) {
        let reader = self.log.reader().verifying();
        let (start, end) = (self.log_start(), self.end());
        assert_eq!(
            (reader.log_start(), reader.next_offset()),
            (start, Offset(end))
        );
        for offset in 0..end {
            check_read(&reader, self, Offset(offset), start);
        }
        assert!(
            reader
                .read(Offset(end), 100, ALL)
                .expect("at the end")
                .is_empty()
        );
        for timestamp in (0..520).step_by(13) {
            let found = reader
                .find_by_timestamp(TimestampMs(timestamp), ALL)
                .expect("find");
            assert_eq!(
                found.map(|(offset, _)| offset),
                self.first_from(timestamp, start)
            );
        }
        self.log.freeze().validate().expect("a valid manifest");
    }
    /// The first record with the timestamp or a later one, by decoding every batch.
    fn first_from(&self, timestamp: i64, start: Offset) -> Option<Offset> {
        use highwater_proto::batch::{DecodeLimits, RecordBatch};
        self.batches().find_map(|batch| {
            let batch = RecordBatch::validate_stored(stored(batch).into()).expect("valid");
            let records = batch.records(&DecodeLimits::default()).expect("plain");
            records
                .map(|record| record.expect("record"))
                .find(|r| r.timestamp.0 >= timestamp && r.offset >= start)
                .map(|record| record.offset)
        })
    }
}

fn check_read(reader: &PartitionReader<OsDisk>, life: &Life, offset: Offset, start: Offset) {
    let result = reader.read(offset, 700, ALL);
    if offset < start {
        assert!(matches!(result, Err(ReadError::BelowStart { log_start }) if log_start == start));
        return;
    }
    let read = result.expect("read");
    assert!(!read.is_empty(), "offset {offset}");
    let mut rest = &read[..];
    let mut expected = life
        .batches()
        .skip_while(|batch| batch.last_offset < offset);
    while !rest.is_empty() {
        let batch = stored(expected.next().expect("no more than was appended"));
        assert!(rest.starts_with(&batch), "offset {offset}");
        rest = &rest[batch.len()..];
    }
}

/// A power loss: what was not synced is gone, cut short, or garbage; indexes were never synced.
fn spoil(path: &Path, manifest: &PartitionManifest, seed: u8) {
    let Some((base, _)) = parse_segment_file(path) else {
        return;
    };
    let is_log = path.extension().is_some_and(|e| e == "log");
    let named = manifest
        .segments
        .iter()
        .find(|s| s.base_offset == base && is_log);
    let keep = named.map_or(0, |s| s.len_bytes as usize);
    let mut content = fs::read(path).expect("content");
    match seed % 4 {
        0 if named.is_none() => return fs::remove_file(path).expect("remove"),
        1 => content.truncate(keep + (content.len() - keep) / 2),
        2 => content[keep..].fill(0xa5),
        _ => return,
    }
    fs::write(path, content).expect("spoil");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_partition_is_what_was_appended(steps in prop::collection::vec(step(), 1..60)) {
        let mut life = Life::new();
        for step in steps {
            let crashed = matches!(step, Step::Crash { .. });
            life.take(step);
            if crashed {
                life.check();
            }
        }
        life.check();
        life.checkpoint();
        life.crash(1);
        life.check();
    }
}
