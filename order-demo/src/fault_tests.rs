//! Tests of the choice of a victim and of the failover's clock.

use super::*;

fn place(partition: u32, shard: u32, leader: Option<u32>) -> Placement {
    Placement {
        partition,
        shard,
        leader,
    }
}

#[test]
fn the_busiest_shard_with_a_leader_is_chosen() {
    let placement = [
        place(0, 10, Some(1)),
        place(1, 11, Some(2)),
        place(2, 10, Some(1)),
        place(3, 12, None),
    ];
    let busy = [(0, 5), (1, 8), (2, 4), (3, 99)].into();
    assert_eq!(busiest(&placement, &busy), Some((1, 10, [0, 2].into())));
    assert_eq!(busiest(&placement, &BTreeMap::new()), None);
}

#[tokio::test(start_paused = true)]
async fn only_orders_sent_after_the_kill_end_the_failover() {
    let probe = Probe::default();
    let from = Instant::now();
    let dead = from + Duration::from_millis(3);
    probe.arm(from, dead, [4].into());
    let now = from + Duration::from_millis(700);
    probe.acknowledged(4, from, now); // may have been answered by the dying broker
    probe.acknowledged(5, now, now); // another shard's
    assert_eq!(*probe.recovered.borrow(), None);
    probe.acknowledged(4, dead, now);
    probe.acknowledged(4, now, now + Duration::from_secs(9));
    assert_eq!(probe.recovered().await, Some(Duration::from_millis(700)));
}
