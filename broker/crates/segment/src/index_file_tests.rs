//! The format of index files.

#![allow(clippy::indexing_slicing)] // the offsets are the test's own

use super::*;

fn sample() -> Vec<u8> {
    let entries = [
        Entry {
            key: 100,
            position: 0,
        },
        Entry {
            key: 140,
            position: 5_000,
        },
    ];
    encode(IndexKind::Offsets, Offset(100), 9_000, &entries)
}

#[test]
fn golden_file_of_version_1() {
    let golden = include_bytes!("../golden/v1.index");
    assert_eq!(sample(), golden);
    assert_eq!(
        check(golden, IndexKind::Offsets, Offset(100)).ok(),
        Some(9_000)
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let good = sample();
    for at in 0..good.len() {
        assert!(
            check(&good[..at], IndexKind::Offsets, Offset(100)).is_err(),
            "cut at {at}"
        );
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(
                check(&bad, IndexKind::Offsets, Offset(100)).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
    assert!(check(&good, IndexKind::Times, Offset(100)).is_err());
    assert!(check(&good, IndexKind::Offsets, Offset(101)).is_err());
}

#[test]
fn long_segments_get_wider_spacing() {
    let mut indexes = SparseIndexes::default();
    let batch = 1 << 14;
    for i in 0..(1u64 << 30) / batch {
        indexes.note(
            4 << 10,
            i,
            i * batch,
            i.checked_sub(1).map(u64::cast_signed),
        );
    }
    assert!(
        indexes.offsets.len() < 30_000,
        "{} entries",
        indexes.offsets.len()
    );
    for offset in [0, 1, 999, 65_535] {
        let start = indexes.offset_floor(offset).expect("complete");
        assert!(start <= offset * batch && offset * batch - start <= 512 << 10);
    }
}

#[test]
fn the_front_that_was_unknown_is_completed() {
    let mut whole = SparseIndexes::default();
    let mut tail = SparseIndexes::starting_at(500);
    for i in 0..100u64 {
        let before = i.checked_sub(1).map(u64::cast_signed);
        whole.note(50, i, i * 10, before);
        if i * 10 >= 500 {
            tail.note(50, i, i * 10, before);
        }
    }
    assert_eq!(tail.offset_floor(10), None);
    assert_eq!(tail.offset_floor(50), Some(500));
    assert_eq!(tail.time_floor(99), None);
    tail.complete(whole.clone());
    assert_eq!((&tail.offsets, &tail.times), (&whole.offsets, &whole.times));
    assert_eq!(tail.time_floor(0), Some(0));
}
