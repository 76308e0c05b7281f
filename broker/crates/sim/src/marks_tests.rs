//! What of a replica's places is noticed.

use std::any::Any;
use std::sync::{Arc, Weak};

use highwater_proto::{Offset, PartitionId, TopicId, TopicPartition};

use super::*;

fn replica(
    identity: &Arc<dyn Any + Send + Sync>,
    places: [u64; 5],
    bounds: (u64, u64),
) -> ReplicaMarks {
    let [purged, checkpointed, applied, committed, last_log] = places;
    let partition = PartitionMarks {
        tp: TopicPartition::new(TopicId(1), PartitionId(0)),
        arrival: 0,
        log_start: Offset(bounds.0),
        high_watermark: Offset(bounds.1),
    };
    ReplicaMarks {
        shard: ShardId(2),
        identity: Weak::clone(&Arc::downgrade(identity)),
        purged,
        checkpointed,
        applied,
        committed,
        last_log,
        partitions: vec![partition],
    }
}

#[test]
fn places_are_in_order_and_go_forward_in_one_life() {
    let life: Arc<dyn Any + Send + Sync> = Arc::new(1);
    let first = || replica(&life, [1, 2, 3, 4, 9], (5, 8));
    let after = |next: ReplicaMarks| {
        let mut marks = Marks::default();
        marks.look("n1", vec![first()]).expect("in order");
        marks
            .look("n1", vec![next])
            .err()
            .map(|error| format!("{error:#}"))
    };
    assert_eq!(after(first()), None);
    assert_eq!(
        after(replica(&life, [1, 2, 4, 4, 4], (6, 9))),
        None,
        "a cut of what is not committed"
    );
    for (next, why) in [
        (replica(&life, [3, 2, 3, 4, 9], (5, 8)), "purged to 3"),
        (replica(&life, [1, 2, 5, 4, 9], (5, 8)), "applied to 5"),
        (replica(&life, [1, 2, 3, 4, 9], (9, 8)), "begins at 9"),
        (replica(&life, [0, 2, 3, 4, 9], (5, 8)), "purged went back"),
        (
            replica(&life, [1, 2, 3, 3, 9], (5, 8)),
            "committed went back from 4 to 3",
        ),
        (
            replica(&life, [1, 2, 3, 4, 9], (5, 7)),
            "went back from 5..8 to 5..7",
        ),
        (
            replica(&life, [1, 2, 3, 4, 9], (4, 8)),
            "went back from 5..8 to 4..8",
        ),
    ] {
        let said = after(next).expect("noticed");
        assert!(said.contains(why) && said.contains("n1, group 2"), "{said}");
    }
    let another: Arc<dyn Any + Send + Sync> = Arc::new(2);
    assert_eq!(
        after(replica(&another, [0; 5], (0, 0))),
        None,
        "another life"
    );
}
