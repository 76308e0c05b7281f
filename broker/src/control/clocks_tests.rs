//! Clocks that agree, contradict, jump and fall silent.

use super::*;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const HOUR: i64 = 3_600_000;

/// What broker `me` knows when broker 1 leads and the clocks are ahead of true time by these.
fn told(me: NodeId, clocks: [i64; 3], at: i64) -> Clocks {
    let leader = Clocks::default();
    for (node, ahead) in NODES.into_iter().zip(clocks) {
        leader.heard(node, at + ahead);
    }
    let own = clocks[me.0 as usize - 1];
    let clocks_of_me = Clocks::default();
    clocks_of_me.told(
        me,
        &leader.to_tell(at + clocks[0]),
        at + clocks[0],
        at + own,
    );
    clocks_of_me
}

#[tokio::test(start_paused = true)]
async fn the_one_that_is_wrong_is_told_and_the_others_go_on() {
    let at = 1_700_000_000_000;
    // Whoever it is, the metadata leader included.
    for wrong in 0..3 {
        let mut clocks = [0, 300, -300];
        clocks[wrong] += HOUR;
        for (n, me) in NODES.into_iter().enumerate() {
            let verdict = told(me, clocks, at).verdict(me, &NODES, at + clocks[n]);
            if n == wrong {
                let Verdict::Disagrees(apart) = verdict else {
                    panic!("broker {me}: {verdict:?}");
                };
                assert!((apart - HOUR).abs() <= 1_000, "{apart}");
            } else {
                assert_eq!(verdict, Verdict::Agrees, "broker {me}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_is_noticed_before_the_next_heartbeat() {
    let (at, me) = (1_700_000_000_000, NodeId(2));
    let clocks = told(me, [0, 0, 0], at);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(clocks.verdict(me, &NODES, at + 3_000), Verdict::Agrees);
    assert_eq!(
        clocks.verdict(me, &NODES, at + 3_000 + HOUR),
        Verdict::Disagrees(HOUR)
    );
    assert_eq!(
        clocks.verdict(me, &NODES, at + 3_000 - HOUR),
        Verdict::Disagrees(-HOUR)
    );
}

#[tokio::test(start_paused = true)]
async fn appends_are_stamped_with_the_time_that_most_have() {
    let at = 1_700_000_000_000;
    for wrong in [-HOUR * 8_760, HOUR] {
        for me in NODES {
            let ahead = [wrong, 300, -300][me.0 as usize - 1];
            let clocks = told(me, [wrong, 300, -300], at);
            let stamp = clocks.append_time(at + ahead);
            assert!((stamp - at).abs() <= 300, "broker {me}: {}", stamp - at);
        }
    }
    // It jumps back between two heartbeats, and then nobody says anything any more.
    let me = NodeId(2);
    let clocks = told(me, [0, 0, 0], at);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(
        clocks.append_time(at + 3_100),
        at + 3_100,
        "its own, while it agrees"
    );
    assert_eq!(clocks.append_time(at + 3_000 - HOUR), at + 3_000);
    tokio::time::advance(FRESH_FOR).await;
    assert_eq!(clocks.append_time(at + 13_000 - HOUR), at + 13_000);
    assert_eq!(
        clocks.append_time(at + HOUR),
        at + HOUR,
        "it may have slept"
    );
    assert_eq!(
        Clocks::default().append_time(at),
        at,
        "nobody was heard yet"
    );
    // Two that contradict each other, and the third is not heard.
    let two = Clocks::default();
    two.heard(NodeId(1), at);
    two.heard(me, at - HOUR);
    let mine = Clocks::default();
    mine.told(me, &two.to_tell(at), at, at - HOUR);
    assert_eq!(mine.append_time(at - HOUR), at);
}

/// A broker that has just started and leads already, by votes of those it was connected to.
#[tokio::test(start_paused = true)]
async fn before_the_metadata_leader_says_anything_peers_clocks_count() {
    let (at, year) = (1_700_000_000_000, HOUR * 8_760);
    let clocks = Clocks::default();
    clocks.met(NodeId(1), at);
    tokio::time::advance(Duration::from_secs(3)).await;
    let now = at + 3_000;
    assert_eq!(clocks.append_time(now - year), now, "the later one of two");
    assert_eq!(clocks.append_time(now + year), now + year);
    assert_eq!(
        clocks.append_time(now + 200),
        now + 200,
        "its own, while it agrees"
    );
    clocks.met(NodeId(3), now);
    assert_eq!(clocks.append_time(now - year), now);
    assert_eq!(clocks.append_time(now + year), now, "most of three");

    tokio::time::advance(FRESH_FOR).await;
    assert_eq!(
        clocks.append_time(now + year),
        now + year,
        "it may have slept"
    );

    // What the metadata leader says counts from then on.
    let (told_at, me) = (now + HOUR, NodeId(2));
    let leader = Clocks::default();
    for node in NODES {
        leader.heard(node, told_at);
    }
    clocks.told(me, &leader.to_tell(told_at), told_at, told_at);
    assert_eq!(clocks.append_time(told_at - year), told_at);
}

/// Whoever the metadata leader tells, itself included, just after its clock was set back.
#[tokio::test(start_paused = true)]
async fn a_metadata_leader_whose_clock_jumps_does_not_make_others_stamp_wrongly() {
    let at = 1_700_000_000_000;
    let leader = Clocks::default();
    for node in NODES {
        leader.heard(node, at);
    }
    tokio::time::advance(Duration::from_millis(900)).await;
    let (now, jumped) = (at + 900, at + 900 - HOUR);
    for me in NODES {
        let own = if me == NODES[0] { jumped } else { now };
        // It hears who asks, then it answers.
        leader.heard(me, own);
        let clocks = Clocks::default();
        clocks.told(me, &leader.to_tell(jumped), jumped, own);
        assert_eq!(clocks.append_time(own), now, "broker {me}");
        // The next leader has heard nobody else yet, and its clock is wrong too.
        let next = Clocks::default();
        next.heard(me, own);
        clocks.told(me, &next.to_tell(jumped), jumped, own);
        assert_eq!(clocks.append_time(jumped), now, "broker {me}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_says_nothing() {
    let (at, me) = (1_700_000_000_000, NodeId(2));
    let clocks = told(me, [0, 0, 0], at);
    assert_eq!(Clocks::default().verdict(me, &NODES, at), Verdict::Unknown);
    tokio::time::advance(FRESH_FOR).await;
    assert_eq!(clocks.verdict(me, &NODES, at + 10_000), Verdict::Unknown);
    // Nobody but this broker was heard.
    let alone = Clocks::default();
    alone.heard(me, at);
    alone.told(me, &alone.to_tell(at), at, at);
    assert_eq!(alone.verdict(me, &NODES, at), Verdict::Unknown);
    assert_eq!(
        alone.verdict(me, &[me], at),
        Verdict::Agrees,
        "a cluster of one"
    );
    // One that does not say.
    let old = Clocks::default();
    old.heard(NodeId(1), 0);
    assert!(old.to_tell(at).is_empty());
}

#[test]
fn a_majority_of_all_brokers_counts_not_of_those_heard() {
    let others: Vec<NodeId> = (2..=5).map(NodeId).collect();
    let heard = |of: &[(u32, i64)]| of.iter().map(|(n, ahead)| (NodeId(*n), *ahead)).collect();
    assert_eq!(judge(0, &others, &heard(&[(2, 0)])), Verdict::Unknown);
    assert_eq!(
        judge(0, &others, &heard(&[(2, 0), (3, 0)])),
        Verdict::Agrees
    );
    let split = heard(&[(2, 0), (3, HOUR), (4, HOUR)]);
    assert_eq!(judge(0, &others, &split), Verdict::Disagrees(-HOUR));
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::StampsOwnTime,
        "control::clocks::tests::appends_are_stamped_with_the_time_that_most_have",
    );
}
