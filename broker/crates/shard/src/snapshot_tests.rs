//! Snapshots: one encoding, everything in it, damage named.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::test_support::{Driver, batch, tp};
use crate::{PartitionConfig, RejectReason, ShardCommand, Verdict};

/// A shard with something in every field.
fn full() -> Driver {
    let config = PartitionConfig {
        segment_bytes: 1000,
        segment_ms: 5000,
        producer_expiry_ms: 60_000,
        max_producers: 3,
        ..PartitionConfig::default()
    };
    let mut driver = Driver::with(config);
    driver.apply(ShardCommand::CreatePartition {
        tp: tp(1),
        config: PartitionConfig::default(),
    });
    for partition in [2, 3] {
        driver.apply(ShardCommand::CreatePartition {
            tp: tp(partition),
            config,
        });
        driver.apply(ShardCommand::DeletePartition { tp: tp(partition) });
    }
    for sequence in 0..7 {
        driver.time += 10;
        driver.leadership = 1 + u64::from(sequence) / 3;
        driver.send((1, 0, sequence), 1);
        driver.send((2, 4, sequence * 2), 2);
    }
    driver.append(batch(None, 4));
    driver.apply(ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(6),
        config_version: None,
    });
    driver
}

#[test]
fn a_snapshot_restores_everything() {
    let mut driver = full();
    driver.restart();
    let facts = driver.state.partition(tp(0)).expect("there");
    assert_eq!(
        (facts.log_start, facts.next_offset),
        (Offset(6), Offset(25))
    );
    assert_eq!(facts.leader_epoch, LeaderEpoch(2));
    assert_eq!(
        driver.send((1, 0, 6), 1),
        Verdict::Duplicate {
            base_offset: Offset(18)
        }
    );
    assert_eq!(
        driver.send((2, 4, 4), 2),
        Verdict::Duplicate {
            base_offset: Offset(7)
        }
    );
    assert_eq!(
        driver.send((1, 0, 0), 1),
        Verdict::Rejected(RejectReason::DuplicateSequence)
    );
    let empty = ShardState::new();
    assert_eq!(
        ShardState::decode_snapshot(&empty.encode_snapshot()),
        Ok(empty)
    );
}

#[test]
fn equal_states_have_equal_bytes_and_hashes() {
    let (a, b) = (full(), full());
    assert_eq!(a.state.encode_snapshot(), b.state.encode_snapshot());
    assert_eq!(a.state.hash(), b.state.hash());
    let mut c = full();
    c.append(batch(None, 1));
    assert_ne!(a.state.hash(), c.state.hash());
}

#[test]
fn newer_formats_and_levels_are_named() {
    let snapshot = |format, feature_level| {
        let snapshot = ShardSnapshot {
            format,
            feature_level,
            ..ShardSnapshot::default()
        };
        ShardState::decode_snapshot(&snapshot.encode_to_vec())
    };
    assert!(snapshot(1, 1).is_ok());
    assert!(snapshot(1, 2).is_ok());
    let newer = |what, found, supported| {
        Err(SnapshotError::Newer {
            what,
            found,
            supported,
        })
    };
    assert_eq!(snapshot(2, 1), newer("format", 2, 1));
    assert!(snapshot(1, 3).is_ok());
    assert!(snapshot(1, 4).is_ok());
    assert!(snapshot(1, 5).is_ok());
    assert!(snapshot(1, 6).is_ok());
    assert!(snapshot(1, 7).is_ok());
    assert_eq!(snapshot(1, 8), newer("feature level", 8, 7));
    for (format, level) in [(0, 0), (0, 1), (1, 0)] {
        assert_eq!(
            snapshot(format, level),
            Err(SnapshotError::Damaged("no format"))
        );
    }
    assert!(ShardState::decode_snapshot(&[]).is_err());
}

type Spoil = fn(&mut ShardPartition);

#[test]
fn what_no_state_can_be_is_damage() {
    let whole = ShardSnapshot::decode(full().state.encode_snapshot()).expect("own snapshot");
    let spoils: [Spoil; 8] = [
        |partition| partition.log_start = partition.next_offset + 1,
        |partition| partition.producers.swap(0, 1),
        |partition| partition.producers[1] = partition.producers[0].clone(),
        |partition| partition.producers[0].base_offsets.clear(),
        |partition| partition.producers[0].record_counts.push(1),
        |partition| partition.producers[0].epoch = 1 << 16,
        |partition| partition.producers[0].last_sequence = 1 << 31,
        |partition| partition.segment.as_mut().expect("open").base_offset = u64::MAX,
    ];
    for (n, spoil) in spoils.iter().enumerate() {
        let mut spoilt = whole.clone();
        spoil(&mut spoilt.partitions[0]);
        let decoded = ShardState::decode_snapshot(&spoilt.encode_to_vec());
        let damaged = matches!(decoded, Err(SnapshotError::DamagedPartition { tp: place, .. })
            if place == tp(0));
        assert!(damaged, "spoil {n}: {decoded:?}");
    }
    let mut swapped = whole.clone();
    swapped.partitions.swap(0, 1);
    assert!(ShardState::decode_snapshot(&swapped.encode_to_vec()).is_err());
    let mut many = whole;
    many.deleted = vec![ShardPlace::default(); DELETED_REMEMBERED + 1];
    assert!(ShardState::decode_snapshot(&many.encode_to_vec()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ShardState::decode_snapshot(&bytes);
        let _ = ShardState::new().read_export(&bytes);
    }

    #[test]
    fn changed_bytes_never_panic_and_what_decodes_is_a_state(at in 0usize..2000, to: u8) {
        let mut bytes = full().state.encode_snapshot().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(state) = ShardState::decode_snapshot(&bytes) {
            let again = ShardState::decode_snapshot(&state.encode_snapshot());
            prop_assert_eq!(again, Ok(state));
        }
    }

    #[test]
    fn every_cut_decodes_to_less_or_not_at_all(end in 0usize..2000) {
        let bytes = full().state.encode_snapshot();
        let cut = &bytes[..end % bytes.len()];
        if let Ok(state) = ShardState::decode_snapshot(cut) {
            prop_assert!(state.partition_count() <= 2);
        }
    }
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::DedupNotInSnapshot,
        "snapshot::tests::a_snapshot_restores_everything",
    );
}
