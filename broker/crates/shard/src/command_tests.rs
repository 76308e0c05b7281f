//! Commands survive their bytes; batches are not copied; bad bytes are errors.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::move_command::{ImportedBatch, MoveStep};
use crate::test_support::{batch, tp};

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 1,
        segment_ms: 2,
        producer_expiry_ms: 3,
        max_producers: 4,
        ..PartitionConfig::default()
    }
}

fn every_kind() -> Vec<ShardCommand> {
    let request = |n: u32| AppendRequest {
        tp: tp(n),
        append_time: TimestampMs(-i64::from(n)),
        batch: batch(None, n + 1),
    };
    vec![
        ShardCommand::Append {
            batches: Vec::new(),
        },
        ShardCommand::Append {
            batches: (0..5).map(request).collect(),
        },
        ShardCommand::CreatePartition {
            tp: tp(0),
            config: PartitionConfig::default(),
        },
        ShardCommand::CreatePartition {
            tp: tp(1),
            config: config(),
        },
        ShardCommand::DeletePartition { tp: tp(u32::MAX) },
        ShardCommand::ConfigurePartition {
            tp: tp(2),
            config: config(),
        },
        ShardCommand::TrimLog {
            tp: tp(3),
            log_start: Offset(u64::MAX),
            config_version: None,
        },
        ShardCommand::RaiseFeatureLevel {
            level: FeatureLevel::LATEST,
        },
    ]
    .into_iter()
    .chain(every_step())
    .collect()
}

fn every_step() -> impl Iterator<Item = ShardCommand> {
    let imported = |n: u32| ImportedBatch {
        append_time: TimestampMs(-i64::from(n)),
        begins_segment: n == 2,
        batch: batch(None, n + 1),
    };
    let steps = vec![
        MoveStep::Begin { config: config() },
        MoveStep::Import {
            batches: (0..4).map(imported).collect(),
        },
        MoveStep::Adopt {
            state: Bytes::from_static(b"a state"),
        },
        MoveStep::Fence,
        MoveStep::Release,
        MoveStep::Forget,
    ];
    steps.into_iter().map(|step| {
        ShardCommand::Move(Box::new(MoveCommand {
            tp: tp(1),
            plan: u64::MAX,
            step,
        }))
    })
}

#[test]
fn every_kind_survives_in_parts_and_in_one_piece() {
    for command in every_kind() {
        let payload = command.encode();
        assert_eq!(ShardCommand::decode(&payload).as_ref(), Ok(&command));
        let whole = Payload::from(payload.to_contiguous());
        assert_eq!(ShardCommand::decode(&whole), Ok(command));
    }
}

#[test]
fn batches_are_shared_both_ways() {
    let sent = batch(None, 3);
    let batches = (0..3)
        .map(|n| AppendRequest {
            tp: tp(n),
            append_time: TimestampMs(0),
            batch: sent.clone(),
        })
        .collect();
    let payload = ShardCommand::Append { batches }.encode();
    let Ok(ShardCommand::Append { batches }) = ShardCommand::decode(&payload) else {
        panic!("an append");
    };
    for request in batches {
        assert_eq!(request.batch.as_ptr(), sent.as_ptr());
    }
}

#[test]
fn every_cut_is_an_error() {
    for command in every_kind() {
        let whole = command.encode().to_contiguous();
        for end in 0..whole.len() {
            let cut = Payload::from(whole.slice(..end));
            assert!(
                ShardCommand::decode(&cut).is_err(),
                "{command:?} cut at {end}"
            );
        }
    }
}

#[test]
fn bytes_behind_a_command_are_an_error() {
    for command in every_kind() {
        let mut payload = command.encode();
        payload.push(Bytes::from_static(b"more"));
        assert_eq!(
            ShardCommand::decode(&payload),
            Err(DecodeError::LeftOver(4))
        );
    }
}

#[test]
fn what_a_newer_release_wrote_is_told_apart() {
    let newer_framing = Payload::from(Bytes::from_static(&[2, 0, 0, 0, 0]));
    let unknown_kind = Payload::from(Bytes::from_static(&[1, 0, 0, 0, 0]));
    let level = FeatureLevel(FeatureLevel::LATEST.0 + 1);
    let newer_level = ShardCommand::RaiseFeatureLevel { level }.encode();
    for payload in [newer_framing, unknown_kind, newer_level] {
        let error = ShardCommand::decode(&payload).expect_err("newer");
        assert!(error.is_newer(), "{error}");
    }
    let cut = ShardCommand::decode(&Payload::new()).expect_err("empty");
    assert!(!cut.is_newer(), "{cut}");
}

#[test]
fn a_length_that_is_a_lie_reserves_nothing() {
    // A header of 4 GiB, and a batch of 4 GiB, in a handful of bytes.
    let header = Payload::from(Bytes::from_static(&[1, 0xff, 0xff, 0xff, 0xff, 0]));
    assert!(matches!(
        ShardCommand::decode(&header),
        Err(DecodeError::Truncated(_))
    ));
    let item = ShardAppendItem {
        length: u32::MAX,
        ..ShardAppendItem::default()
    };
    let append = Wire::Append(ShardAppend { items: vec![item] });
    let body = ShardCommandHeader {
        command: Some(append),
    }
    .encode_to_vec();
    let mut bytes = vec![1, 0, 0, 0, u8::try_from(body.len()).expect("short")];
    bytes.extend(body);
    let batch = Payload::from(Bytes::from(bytes));
    assert!(matches!(
        ShardCommand::decode(&batch),
        Err(DecodeError::Truncated(_))
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ShardCommand::decode(&Payload::from(Bytes::from(bytes)));
    }

    #[test]
    fn changed_bytes_never_panic(at in 0usize..400, to in any::<u8>(), which in 0usize..8) {
        let mut bytes = every_kind().swap_remove(which).encode().to_contiguous().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = ShardCommand::decode(&Payload::from(Bytes::from(bytes)));
    }
}
