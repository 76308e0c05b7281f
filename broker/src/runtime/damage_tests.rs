//! Notes of damage: what is one, what is none, and what is said of them.

use std::path::PathBuf;

use highwater_proto::{PartitionId, TopicId};
use highwater_segment::{Damage, FileError};

use super::*;

const SHARD: ShardId = ShardId(4);

fn damaged(partition: u32, base: u64) -> (Place, ReadError) {
    let tp = TopicPartition::new(TopicId(7), PartitionId(partition));
    let damage = Damage {
        partition: tp,
        path: PathBuf::from(format!("/data/partitions/{tp}/{base:020}.log")),
        position: 90,
        reason: "a batch does not fit its checksum",
    };
    ((tp, Offset(base)), ReadError::Damaged(damage))
}

#[test]
fn every_bad_range_is_kept_until_it_is_whole() {
    let notes = DamageNotes::default();
    let (one, first) = damaged(0, 0);
    let (two, second) = damaged(1, 500);
    notes.note(SHARD, &first);
    notes.note(SHARD, &first);
    notes.note(SHARD, &second);
    assert_eq!(notes.ranges(), [(SHARD, one), (SHARD, two)]);
    notes.doing(SHARD, one, "broker 2 sends it");
    let words = notes.of(SHARD).expect("bad");
    assert!(words.contains("byte 90"), "{words}");
    assert!(
        words.ends_with("(broker 2 sends it); and 1 more"),
        "{words}"
    );
    notes.clear(SHARD, one);
    assert!(notes.is_bad(SHARD) && notes.is_noted(SHARD, two) && !notes.is_noted(SHARD, one));
    notes.note_log(SHARD, "an entry".to_owned());
    notes.clear(SHARD, two);
    assert!(notes.is_bad(SHARD));
    let found = notes.log_to_renew().expect("bad");
    notes.log_renewed(found);
    assert!(!notes.is_bad(SHARD) && notes.of(SHARD).is_none());
}

#[test]
fn what_is_found_while_the_log_is_renewed_is_not_over_with_it() {
    let notes = DamageNotes::default();
    assert_eq!(notes.log_to_renew(), None);
    notes.renew_log();
    let first = notes.log_to_renew().expect("bad");
    notes.note_log(SHARD, "an entry".to_owned());
    notes.log_renewed(first);
    assert!(notes.is_bad(SHARD));
    let second = notes.log_to_renew().expect("bad");
    notes.log_renewed(second);
    assert!(!notes.is_bad(SHARD) && notes.log_to_renew().is_none());
}

#[test]
fn what_says_nothing_of_the_files_is_no_damage() {
    let notes = DamageNotes::default();
    let busy = FileError::Io {
        operation: "open",
        path: PathBuf::from("/data/partitions/7-0/00000000000000000000.log"),
        source: std::io::Error::from_raw_os_error(24),
    };
    notes.note(SHARD, &ReadError::File(busy));
    let log_start = Offset(3);
    notes.note(SHARD, &ReadError::BelowStart { log_start });
    assert!(!notes.is_bad(SHARD));
    let path = PathBuf::from("/data/partitions/7-0/00000000000000000000.log");
    notes.note(SHARD, &ReadError::File(FileError::Missing { path }));
    assert!(notes.is_bad(SHARD));
}

#[test]
fn what_an_earlier_process_noted_counts_until_it_was_read() {
    let before = DamageNotes::default();
    let (one, first) = damaged(0, 0);
    let (two, second) = damaged(1, 500);
    before.note(SHARD, &first);
    before.note(SHARD, &second);
    // The log is read at each start anyway.
    before.note_log(ShardId(9), "an entry".to_owned());

    let notes = DamageNotes::restored(before.to_keep());
    assert!(notes.is_bad(SHARD) && !notes.is_bad(ShardId(9)));
    assert_eq!(notes.ranges(), before.ranges());
    assert_eq!(notes.of(SHARD), before.of(SHARD));
    assert!(notes.is_unread(SHARD, one) && !before.is_unread(SHARD, one));
    notes.confirm(SHARD, one);
    assert!(!notes.is_unread(SHARD, one) && notes.is_noted(SHARD, one));
    notes.clear(SHARD, two);
    assert_eq!(notes.ranges(), [(SHARD, one)]);
    assert_eq!(notes.to_keep(), before.to_keep()[..1]);
}
