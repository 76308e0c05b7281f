//! Replies survive their bytes; bad bytes are errors.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

fn every_kind() -> Vec<ShardReply> {
    let mut verdicts: Vec<Verdict> = REASONS.into_iter().map(Verdict::Rejected).collect();
    verdicts.push(Verdict::Duplicate {
        base_offset: Offset(u64::MAX),
    });
    for append_time in [None, Some(TimestampMs(i64::MIN)), Some(TimestampMs(0))] {
        let (base_offset, log_start) = (Offset(300), Offset(5));
        verdicts.push(Verdict::Appended {
            base_offset,
            log_start,
            append_time,
        });
    }
    vec![
        ShardReply::Append(Vec::new()),
        ShardReply::Append(verdicts),
        ShardReply::Done,
        ShardReply::Trimmed {
            log_start: Offset(1 << 40),
        },
        ShardReply::Refused(CommandRefusal::UnknownPartition),
        ShardReply::Refused(CommandRefusal::PartitionExists),
        ShardReply::Refused(CommandRefusal::PartitionDeleted),
        ShardReply::Refused(CommandRefusal::Moving),
        ShardReply::Refused(CommandRefusal::OtherMove),
        ShardReply::Refused(CommandRefusal::OffsetOutOfRange {
            next_offset: Offset(9),
        }),
        ShardReply::Malformed,
    ]
}

#[test]
fn every_kind_survives_and_every_cut_is_an_error() {
    for reply in every_kind() {
        let bytes = reply.encode();
        assert_eq!(ShardReply::decode(&bytes).as_ref(), Ok(&reply));
        for end in 0..bytes.len() {
            assert!(
                ShardReply::decode(&bytes[..end]).is_err(),
                "{reply:?} cut at {end}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(ShardReply::decode(&longer).is_err());
    }
}

#[test]
fn an_acknowledgement_takes_few_bytes() {
    let (base_offset, log_start) = (Offset(1 << 30), Offset(0));
    let verdict = Verdict::Appended {
        base_offset,
        log_start,
        append_time: None,
    };
    assert!(ShardReply::Append(vec![verdict; 100]).encode().len() < 1000);
}

#[test]
fn a_count_that_is_a_lie_reserves_nothing() {
    let mut bytes = vec![APPEND];
    encode_varint(u64::MAX, &mut bytes);
    assert!(ShardReply::decode(&bytes).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = ShardReply::decode(&bytes);
    }
}
