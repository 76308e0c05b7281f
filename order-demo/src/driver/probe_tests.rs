//! Only an acknowledgement that a new leader gave ends a failover.

use super::*;

#[test]
fn the_busiest_broker_is_chosen() {
    let place = |partition, shard, leader| Placement {
        partition,
        shard,
        leader,
    };
    let placement = [
        place(0, 4, Some(1)),
        place(1, 5, Some(2)),
        place(2, 6, Some(2)),
        place(3, 6, Some(2)),
        place(4, 7, None),
    ];
    assert_eq!(busiest(&placement), Some((2, 6, [2, 3].into())));
    assert_eq!(busiest(&placement[4..]), None);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_death_does_not_count() {
    let probe = Probe::default();
    let from = Instant::now();
    let dead = from + Duration::from_millis(5);
    probe.arm(from, dead, [3].into());
    let later = from + Duration::from_millis(900);
    probe.acknowledged(3, from, later);
    probe.acknowledged(2, dead, later);
    assert_eq!(probe.recovered(Duration::from_millis(1)).await, None);
    probe.acknowledged(3, dead, later);
    let took = probe.recovered(Duration::from_millis(1)).await;
    assert_eq!(took, Some(Duration::from_millis(900)));
}
