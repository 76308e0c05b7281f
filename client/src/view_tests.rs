//! Tests of the cluster view: the highest term wins, whoever brings it.

use super::*;

fn topic(id: u64, leader: Option<u32>, term: u64) -> v1::TopicMetadata {
    let partition = |partition| v1::PartitionMetadata {
        partition,
        shard: 1,
        leader,
        term,
        replicas: vec![1, 2],
        ..Default::default()
    };
    v1::TopicMetadata {
        id,
        name: "t".into(),
        ready: true,
        partitions: vec![partition(0), partition(1)],
        ..Default::default()
    }
}

fn update(topics: Vec<v1::TopicMetadata>, missing: &[&str]) -> v1::MetadataUpdate {
    v1::MetadataUpdate {
        topics,
        missing_topics: missing.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    }
}

fn leader(view: &ClusterView, id: u64, partition: u32) -> Option<(u32, u64)> {
    view.leader(TopicId(id), PartitionId(partition))
        .map(|(node, term)| (node.0, term))
}

#[test]
fn the_highest_term_wins_over_streams_and_hints() {
    let (mut view, mut seen) = (ClusterView::default(), BTreeMap::new());
    view.apply(
        &update(vec![topic(5, Some(1), 3)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((1, 3)));
    let hint = v1::LeaderHint {
        broker_id: 2,
        address: "b:1".into(),
        term: 4,
        ..Default::default()
    };
    assert!(view.apply_hint(TopicId(5), PartitionId(0), &hint));
    assert_eq!(
        leader(&view, 5, 1),
        Some((2, 4)),
        "a hint speaks for the shard"
    );
    assert_eq!(view.address(NodeId(2)), Some("b:1"));
    view.apply(
        &update(vec![topic(5, Some(1), 3)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(
        leader(&view, 5, 0),
        Some((2, 4)),
        "an older stream changes nothing"
    );
    view.apply(
        &update(vec![topic(5, None, 5)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), None, "an election has begun");
    assert!(!view.apply_hint(TopicId(5), PartitionId(0), &hint));
}

#[test]
fn a_leader_outlives_a_term_in_which_nobody_came_to_lead() {
    let (mut view, mut seen) = (ClusterView::default(), BTreeMap::new());
    let still_there = |outlived: u64| {
        let mut topic = topic(5, Some(3), 12);
        for partition in &mut topic.partitions {
            partition.outlived_term = outlived;
        }
        update(vec![topic], &[])
    };
    view.apply(&still_there(0), &mut seen, &Least::new());
    view.apply(
        &update(vec![topic(5, None, 13)], &[]),
        &mut seen,
        &Least::new(),
    );
    view.apply(&still_there(0), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), None, "that broker has not heard of it");
    view.apply(&still_there(13), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), Some((3, 12)));
    view.apply(
        &update(vec![topic(5, Some(1), 14)], &[]),
        &mut seen,
        &Least::new(),
    );
    view.apply(&still_there(13), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), Some((1, 14)));
}

#[test]
fn a_topic_goes_only_by_the_stream_that_knew_it() {
    let mut view = ClusterView::default();
    let (mut first, mut lagging) = (BTreeMap::new(), BTreeMap::new());
    view.apply(&update(vec![], &["t"]), &mut first, &Least::new());
    assert!(view.missing.contains("t"));
    view.apply(
        &update(vec![topic(5, Some(1), 1)], &[]),
        &mut first,
        &Least::new(),
    );
    view.apply(&update(vec![], &["t"]), &mut lagging, &Least::new());
    assert!(view.topic(TopicId(5)).is_some() && view.missing.is_empty());
    assert_eq!(view.deleted(TopicId(5)), None);
    view.apply(&update(vec![], &["t"]), &mut first, &Least::new());
    assert!(view.topic(TopicId(5)).is_none() && view.missing.contains("t"));
    let code = |view: &ClusterView, id| view.deleted(TopicId(id)).and_then(|cause| cause.code());
    assert_eq!(code(&view, 5), Some(ErrorCode::TopicDeleted));
    view.apply(
        &update(vec![topic(9, Some(1), 1)], &[]),
        &mut first,
        &Least::new(),
    );
    assert_eq!(code(&view, 9), None);
    view.apply(
        &update(vec![topic(5, Some(2), 8)], &[]),
        &mut lagging,
        &Least::new(),
    );
    assert_eq!(
        view.topics["t"].id,
        TopicId(9),
        "an older id does not come back"
    );
    // Who lags hears of the end of the old one now: the new one lives.
    view.apply(&update(vec![], &["t"]), &mut lagging, &Least::new());
    assert_eq!(view.topics["t"].id, TopicId(9));
    assert_eq!(code(&view, 9), None);
    // Made again before anybody said that it was missing.
    view.apply(
        &update(vec![topic(12, None, 0)], &[]),
        &mut first,
        &Least::new(),
    );
    assert_eq!(code(&view, 9), Some(ErrorCode::TopicDeleted));
    assert_eq!(code(&view, 12), None);
}

/// Partition 0 in another shard, moved there by this plan; its terms begin low.
fn moved(arrival: u64, shard: u32, leader: u32, term: u64) -> v1::TopicMetadata {
    let mut topic = topic(5, Some(1), 30);
    let first = &mut topic.partitions[0];
    (first.arrival, first.shard) = (arrival, shard);
    (first.leader, first.term) = (Some(leader), term);
    topic
}

#[test]
fn a_partition_that_moved_is_followed_whatever_the_terms_of_the_two_shards() {
    let (mut view, mut seen) = (ClusterView::default(), BTreeMap::new());
    view.apply(
        &update(vec![topic(5, Some(1), 30)], &[]),
        &mut seen,
        &Least::new(),
    );
    view.apply(
        &update(vec![moved(7, 2, 3, 4)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((3, 4)));
    assert_eq!(leader(&view, 5, 1), Some((1, 30)), "the others stay");
    // Who lags does not bring it back, and leaders of the new shard are followed by their terms.
    view.apply(
        &update(vec![topic(5, Some(1), 31)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((3, 4)));
    assert_eq!(leader(&view, 5, 1), Some((1, 31)));
    view.apply(
        &update(vec![moved(7, 2, 2, 5)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((2, 5)));
    // It may come back.
    view.apply(
        &update(vec![moved(9, 1, 1, 31)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((1, 31)));
}

#[test]
fn a_hint_to_another_shard_speaks_for_the_partition_alone() {
    let (mut view, mut seen) = (ClusterView::default(), BTreeMap::new());
    view.apply(
        &update(vec![topic(5, Some(1), 3)], &[]),
        &mut seen,
        &Least::new(),
    );
    let hint = |shard, arrival, term| v1::LeaderHint {
        broker_id: 3,
        address: "c:1".into(),
        term,
        shard,
        arrival,
        ..Default::default()
    };
    let at = PartitionId(0);
    assert!(view.apply_hint(TopicId(5), at, &hint(2, 7, 40)));
    assert_eq!(leader(&view, 5, 0), Some((3, 40)));
    assert_eq!(leader(&view, 5, 1), Some((1, 3)));
    assert!(!view.apply_hint(TopicId(5), at, &hint(1, 0, 50)), "it lags");
    assert_eq!(leader(&view, 5, 0), Some((3, 40)));
}

#[test]
fn a_shard_that_was_begun_anew_is_followed_however_low_its_terms_are() {
    let (mut view, mut seen) = (ClusterView::default(), BTreeMap::new());
    view.apply(
        &update(vec![topic(5, Some(1), 30)], &[]),
        &mut seen,
        &Least::new(),
    );
    let anew = |leader, term| {
        let mut topic = topic(5, leader, term);
        for partition in &mut topic.partitions {
            partition.beginning = 7;
        }
        update(vec![topic], &[])
    };
    view.apply(&anew(None, 0), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), None, "who led what was lost does not");
    view.apply(&anew(Some(1), 1), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), Some((1, 1)));
    // Who lags does not bring the old one back, whichever way it is told.
    view.apply(
        &update(vec![topic(5, Some(2), 31)], &[]),
        &mut seen,
        &Least::new(),
    );
    assert_eq!(leader(&view, 5, 0), Some((1, 1)));
    let hint = |broker_id, term, beginning| v1::LeaderHint {
        broker_id,
        address: "c:1".into(),
        term,
        shard: 1,
        beginning,
        ..Default::default()
    };
    let at = PartitionId(0);
    view.apply_hint(TopicId(5), at, &hint(2, 31, 0));
    assert_eq!(leader(&view, 5, 0), Some((1, 1)), "it lags");
    assert!(view.apply_hint(TopicId(5), at, &hint(3, 2, 7)));
    assert_eq!(leader(&view, 5, 1), Some((3, 2)), "it speaks for the shard");
    view.apply(&anew(Some(1), 1), &mut seen, &Least::new());
    assert_eq!(leader(&view, 5, 0), Some((3, 2)));
    assert!(view.apply_hint(TopicId(5), at, &hint(2, 1, 9)));
    assert_eq!(leader(&view, 5, 0), Some((2, 1)), "lost once more");
}

#[test]
fn what_was_made_or_deleted_here_is_never_again_taken_for_what_was_before() {
    let (mut view, mut lagging) = (ClusterView::default(), BTreeMap::new());
    let mut told = |view: &mut ClusterView, id, least| {
        let least = Least::from([("t".to_owned(), TopicId(least))]);
        view.apply(
            &update(vec![topic(id, Some(1), 3)], &[]),
            &mut lagging,
            &least,
        );
    };
    // Made by this client, which had not heard of an earlier one.
    told(&mut view, 7, 8);
    assert!(view.topics.is_empty());
    told(&mut view, 8, 8);
    assert_eq!(leader(&view, 8, 0), Some((1, 3)));
    // Deleted by this client.
    assert!(!view.at_least("t", TopicId(8)), "it may be that");
    assert!(view.at_least("t", TopicId(9)));
    assert!(view.topics.is_empty() && view.deleted(TopicId(8)).is_some());
    told(&mut view, 8, 9);
    assert!(view.topics.is_empty() && !view.at_least("t", TopicId(9)));
}
