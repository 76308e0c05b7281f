//! Consumer groups of real clusters: members come, go, die and return as zombies; coordinators die
//! and stand still.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use highwater_client::NewTopic;
use highwater_proto::v1::{
    CopyGroupRequest, DeleteGroupRequest, Error, ErrorCode, JoinGroupRequest, ListGroupsRequest,
    ListParkedKeysRequest, ParkKey, ParkKeysRequest, ResetOffsetsRequest, ResetOffsetsResponse,
    UnparkKey, UnparkKeysRequest, groups_client::GroupsClient, reset_offsets_request::To,
};
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic};
use super::members::{Door, Member, subscription};

const NOW: Duration = Duration::from_millis(200);

/// These tests are not about how fast a leader is replaced: on a busy machine it should not be
/// replaced without need.
const CALM: [(&str, &str); 3] = [
    ("raft.heartbeat_ms", "250ms"),
    ("raft.election_min_ms", "1500ms"),
    ("raft.election_max_ms", "2500ms"),
];

/// A member that gives up after three seconds of silence.
fn impatient(topics: &[&str]) -> JoinGroupRequest {
    JoinGroupRequest {
        session_timeout_ms: 3_000,
        ..subscription(topics)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_what_they_keep_goes_on() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let door = Door::new(&fleet, "billing");
    let mut one = Member::join(&door, "one", subscription(&["orders"])).await;
    one.holds(6).await;
    one.commit_all(10).await;
    let before = one.clone();
    let mut two = Member::join(&door, "two", subscription(&["orders"])).await;
    // The first hears that it has to give up three; until it has, they are its own.
    eventually("told to give up three", async || {
        one.beat(NOW, false).await.expect("a member");
        (one.revoking.len() == 3).then_some(())
    })
    .await;
    two.beat(Duration::ZERO, true).await.expect("a member");
    assert_eq!(two.assigned.len(), 0, "nothing is free yet");
    let given_up: Vec<_> = one.revoking.iter().map(|place| (*place, 11)).collect();
    let committed = one.commit(&given_up).await.expect("still its own");
    assert!(
        committed.results.iter().all(|r| r.error.is_none()),
        "{committed:?}"
    );
    one.holds(3).await;
    two.holds(3).await;
    for (place, (_, start)) in &two.assigned {
        assert_eq!(
            *start,
            Some(11),
            "{place:?} begins where the other has ended"
        );
    }
    for place in one.assigned.keys() {
        assert_eq!(
            one.assigned[place].0, before.assigned[place].0,
            "never paused"
        );
    }
    let zombie = before.commit(&given_up).await.expect("an answer");
    let codes = zombie
        .results
        .iter()
        .map(|r| r.error.as_ref().map(Error::code));
    assert!(
        codes
            .into_iter()
            .all(|code| code == Some(ErrorCode::FencedMember)),
        "{zombie:?}"
    );
    // New partitions and new topics are picked up; another member leaves, and all is the first's.
    let group = door.stable(2).await;
    assert_eq!(group.partitions.len(), 6);
    assert_eq!(group.problems, [""; 0]);
    let mut leaving = GroupsClient::connect(fleet.uri(door.coordinator().await))
        .await
        .expect("a door");
    let leave = highwater_proto::v1::LeaveGroupRequest {
        group: "billing".to_owned(),
        member_id: two.id.clone(),
        instance_id: String::new(),
    };
    let left = leaving.leave(leave).await.expect("an answer").into_inner();
    assert_eq!(left.error, None);
    one.holds(6).await;
    let error = two.beat(NOW, true).await.expect_err("no member any more");
    assert_eq!(error.code(), ErrorCode::UnknownMember);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_survives_the_death_of_its_coordinator_and_expels_the_silent() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(4)).await;
    let door = Door::new(&fleet, "billing");
    let mut one = Member::join(&door, "one", impatient(&["orders"])).await;
    let mut silent = Member::join(&door, "silent", impatient(&["orders"])).await;
    let settled = async |one: &mut Member, other: &mut Member| {
        eventually("both hold two", async || {
            one.beat(NOW, true).await.expect("a member");
            other.beat(NOW, true).await.expect("a member");
            (one.assigned.len() == 2 && other.assigned.len() == 2).then_some(())
        })
        .await;
    };
    settled(&mut one, &mut silent).await;
    one.commit_all(7).await;
    silent.commit_all(8).await;
    let committed = door.committed().await;
    let epochs = (one.epoch, silent.epoch);

    let coordinator = door.coordinator().await;
    fleet.kill(coordinator).await;
    // Another broker knows the members, what they hold and what they have committed.
    one.beat(Duration::ZERO, true)
        .await
        .expect("still a member");
    silent
        .beat(Duration::ZERO, true)
        .await
        .expect("still a member");
    assert_eq!((one.epoch, silent.epoch), epochs, "nothing moved");
    assert_eq!(door.committed().await, committed);
    one.commit_all(9).await;

    // Now one of them is silent, and the other gets everything.
    one.holds(4).await;
    let error = silent
        .commit(&[(*silent.assigned.keys().next().expect("one"), 20)])
        .await;
    assert_eq!(
        error.expect_err("a zombie").code(),
        ErrorCode::UnknownMember
    );
    for (place, (_, start)) in &one.assigned {
        let expected = if silent.assigned.contains_key(place) {
            8
        } else {
            9
        };
        assert!(
            *start == Some(expected) || *start == Some(7),
            "{place:?}: {start:?}"
        );
    }
    // All of it is on disk.
    let committed = door.committed().await;
    fleet.start(coordinator);
    fleet.ready(coordinator).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    assert_eq!(door.committed().await, committed);
    assert_eq!(door.describe().await.members.len(), 1);
    one.beat(Duration::ZERO, true)
        .await
        .expect("still a member");
    one.commit_all(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_coordinator_expels_nobody() {
    let fleet = Fleet::started(1, &CALM).await;
    let client = fleet.client().await;
    make_topic(
        &client,
        NewTopic::named("orders")
            .partitions(2)
            .replication_factor(1),
    )
    .await;
    let door = Door::new(&fleet, "billing");
    let mut one = Member::join(&door, "one", impatient(&["orders"])).await;
    one.holds(2).await;
    let epoch = one.epoch;
    // Longer than the session; the member tries all the time, and cannot be heard.
    fleet.pause(1);
    sleep(Duration::from_secs(5)).await;
    fleet.resume(1);
    // Ticks go on before it is heard again: they begin its session anew.
    sleep(Duration::from_millis(1_000)).await;
    one.beat(Duration::ZERO, true)
        .await
        .expect("still a member");
    assert_eq!((one.epoch, one.assigned.len()), (epoch, 2));
    let expelled = fleet
        .metric(1, "highwater_group_members_expelled_total")
        .await;
    assert_eq!(expelled.unwrap_or(0.0), 0.0);
    // The control: with a coordinator that is awake the same silence ends the membership.
    eventually("it is expelled", async || {
        door.describe().await.members.is_empty().then_some(())
    })
    .await;
    let error = one.beat(Duration::ZERO, true).await.expect_err("expelled");
    assert_eq!(error.code(), ErrorCode::UnknownMember);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_members_that_join_at_once_settle() {
    const MEMBERS: usize = 200;
    const PARTITIONS: u32 = 1_000;
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(PARTITIONS)).await;
    let door = Door::new(&fleet, "billing");
    let begin = Instant::now();
    let share = PARTITIONS as usize / MEMBERS;
    let joins = (0..MEMBERS).map(async |n| {
        let mut member = Member::join(&door, &format!("m{n}"), subscription(&["orders"])).await;
        member.holds(share).await;
        member
    });
    let members = join_all(joins).await;
    eprintln!(
        "  {MEMBERS} members, {PARTITIONS} partitions: settled after {:?}",
        begin.elapsed()
    );
    let places: BTreeSet<_> = members.iter().flat_map(|m| m.assigned.keys()).collect();
    assert_eq!(
        places.len(),
        PARTITIONS as usize,
        "each partition has one owner"
    );
    // One more moves its share alone.
    let (begin, settled) = (Instant::now(), AtomicBool::new(false));
    let beats = members.into_iter().map(async |mut member| {
        let losses = member.losses;
        // It hears of its loss, if it has one, as soon as the late one is to have its share.
        let end = Instant::now() + PATIENCE;
        while !settled.load(Ordering::Relaxed) && Instant::now() < end {
            member
                .beat(Duration::from_secs(1), true)
                .await
                .expect("a member");
        }
        member.losses - losses
    });
    let late = async {
        let mut late = Member::join(&door, "late", subscription(&["orders"])).await;
        late.holds(4).await;
        eprintln!("  one more has its share after {:?}", begin.elapsed());
        settled.store(true, Ordering::Relaxed);
    };
    let (losses, ()) = tokio::join!(join_all(beats), late);
    let losses: usize = losses.into_iter().sum();
    assert_eq!(losses, 4, "only what it got has moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_static_members_and_new_partitions_are_followed() {
    let fleet = Fleet::started(1, &CALM).await;
    let client = fleet.client().await;
    let topic = |name: &str, partitions| {
        NewTopic::named(name)
            .partitions(partitions)
            .replication_factor(1)
    };
    make_topic(&client, topic("audit-a", 2)).await;
    make_topic(&client, topic("other", 2)).await;
    let door = Door::new(&fleet, "watchers");
    let by_pattern = JoinGroupRequest {
        pattern: "audit-.*".to_owned(),
        instance_id: "i-1".to_owned(),
        ..subscription(&["not-yet"])
    };
    let mut one = Member::join(&door, "one", by_pattern.clone()).await;
    one.holds(2).await;
    make_topic(&client, topic("audit-b", 3)).await;
    one.holds(5).await;
    make_topic(&client, topic("not-yet", 1)).await;
    one.holds(6).await;
    // The process comes back under a new id: same place, nothing is shared out anew.
    let mut again = Member::join(&door, "again", by_pattern.clone()).await;
    assert_eq!(again.assigned.len(), 6);
    assert!(
        again
            .assigned
            .values()
            .all(|(granted, _)| *granted == again.epoch)
    );
    let fenced = one.beat(Duration::ZERO, true).await.expect_err("fenced");
    assert_eq!(fenced.code(), ErrorCode::FencedInstance);
    let fenced = Member::try_join(&door, "one", by_pattern)
        .await
        .err()
        .expect("fenced");
    assert_eq!(fenced.code(), ErrorCode::FencedInstance);
    again.holds(6).await;
    for (wrong, code) in [
        (subscription(&[]), ErrorCode::InvalidSubscription),
        (
            JoinGroupRequest {
                pattern: "(".to_owned(),
                ..subscription(&[])
            },
            ErrorCode::InvalidSubscription,
        ),
        (
            JoinGroupRequest {
                session_timeout_ms: 10,
                ..subscription(&["other"])
            },
            ErrorCode::InvalidRequest,
        ),
    ] {
        let error = Member::try_join(&door, "wrong", wrong)
            .await
            .err()
            .expect("refused");
        eprintln!("  says: {}", error.message);
        assert_eq!(error.code(), code);
    }
}

/// Sends a reset to a group's coordinator.
async fn reset(
    door: &Door,
    to: To,
    (execute, force): (bool, bool),
) -> Result<ResetOffsetsResponse, Error> {
    let request = ResetOffsetsRequest {
        group: door.group.clone(),
        to: Some(to),
        execute,
        force,
        ..ResetOffsetsRequest::default()
    };
    door.call(async move |mut client| {
        let answer = client.reset_offsets(request.clone()).await?.into_inner();
        let error = answer.error.clone();
        Ok((answer, error))
    })
    .await
}

/// A topic of two partitions with 60 records, and a group with one member that has committed 10 of
/// each.
async fn group_with_a_lag(fleet: &Fleet) -> (Door, Member) {
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let producer = client.producer().build();
    let mut journal = Journal::of("orders");
    journal.produce(&producer, 60).await;
    let door = Door::new(fleet, "billing");
    let mut one = Member::join(&door, "one", impatient(&["orders"])).await;
    one.holds(2).await;
    one.commit_all(10).await;
    (door, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_described_with_their_lag_and_reset() {
    let fleet = Fleet::started(3, &CALM).await;
    let (door, mut one) = group_with_a_lag(&fleet).await;
    let group = door.describe().await;
    let ends: Vec<u64> = group
        .partitions
        .iter()
        .filter_map(|p| p.log_end_offset)
        .collect();
    assert_eq!(ends.iter().sum::<u64>(), 60);
    let lags: Vec<Option<u64>> = group.partitions.iter().map(|p| p.lag).collect();
    assert_eq!(
        lags,
        ends.iter().map(|end| Some(end - 10)).collect::<Vec<_>>()
    );
    assert_eq!(group.lag, 40);
    assert!(group.partitions.iter().all(|p| p.lag_seconds.is_some()));
    assert!(
        group
            .partitions
            .iter()
            .all(|p| p.member_id == one.id && p.client_id == "test")
    );

    let refused = reset(&door, To::Earliest(true), (true, false)).await;
    assert_eq!(
        refused.expect_err("it has a member").code(),
        ErrorCode::GroupNotEmpty
    );
    let dry = reset(&door, To::Shift(-4), (false, true))
        .await
        .expect("a table");
    assert!(!dry.executed && dry.changes.iter().all(|c| (c.from, c.to) == (Some(10), 6)));
    assert!(
        door.committed().await.values().all(|offset| *offset == 10),
        "a dry run"
    );
    let done = reset(&door, To::Shift(-4), (true, true))
        .await
        .expect("forced");
    assert!(done.executed);
    // What the member did before cannot be committed over it; it is told to start anew.
    let place = *one.assigned.keys().next().expect("one");
    let late = one.commit(&[(place, 12)]).await.expect("an answer");
    assert_eq!(
        late.results[0].error.as_ref().map(Error::code),
        Some(ErrorCode::FencedMember)
    );
    one.beat(NOW, true).await.expect("a member");
    assert!(
        one.assigned
            .values()
            .all(|(_, committed)| *committed == Some(6))
    );
    one.commit_all(7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_copied_listed_and_deleted() {
    let fleet = Fleet::started(3, &CALM).await;
    let (door, _silent) = group_with_a_lag(&fleet).await;
    eventually("expelled", async || {
        door.describe().await.members.is_empty().then_some(())
    })
    .await;
    reset(&door, To::Latest(true), (true, false))
        .await
        .expect("reset");
    let copy_door = Door::new(&fleet, "billing-copy");
    let request = CopyGroupRequest {
        from: "billing".to_owned(),
        to: "billing-copy".to_owned(),
        timeout_ms: 0,
    };
    let copied = copy_door.call(async |mut client| {
        let answer = client.copy_group(request.clone()).await?.into_inner();
        let error = answer.error.clone();
        Ok((answer, error))
    });
    assert_eq!(copied.await.expect("copied").offsets, 2);
    assert_eq!(copy_door.committed().await, door.committed().await);
    let lag = copy_door.describe().await;
    assert_eq!((lag.lag, lag.partitions.len()), (0, 2));

    let mut any = GroupsClient::connect(fleet.uri(2)).await.expect("a door");
    eventually("both are listed by any broker", async || {
        let listed = any
            .list_groups(ListGroupsRequest::default())
            .await
            .ok()?
            .into_inner();
        let names: Vec<&str> = listed.groups.iter().map(|g| g.group.as_str()).collect();
        (names == ["billing", "billing-copy"] && listed.problems.is_empty()).then_some(())
    })
    .await;
    let delete = DeleteGroupRequest {
        group: "billing-copy".to_owned(),
        timeout_ms: 0,
    };
    let deleted = copy_door.call(async |mut client| {
        let answer = client.delete_group(delete.clone()).await?.into_inner();
        let error = answer.error.clone();
        Ok((answer, error))
    });
    deleted.await.expect("deleted");
    eventually("the lag is a metric of the coordinator", async || {
        let (_, text) = fleet.http(door.coordinator().await, "/metrics").await;
        let group = "consumergroup=\"billing\"";
        let lag = format!("kafka_consumergroup_lag{{{group},topic=\"orders\",partition=\"1\"}} 0");
        text.contains(&lag).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_survive_failover_and_are_redriven() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(1)).await;
    let door = Door::new(&fleet, "billing");
    let mut one = Member::join(&door, "one", subscription(&["orders"])).await;
    one.holds(1).await;
    let (topic_id, partition) = *one.assigned.keys().next().expect("one");
    let park = ParkKeysRequest {
        group: "billing".to_owned(),
        member_id: one.id.clone(),
        epoch: one.epoch,
        keys: vec![ParkKey {
            topic_id,
            partition,
            key: "customer 7".into(),
            offset: 4,
        }],
        offsets: vec![highwater_proto::v1::OffsetCommit {
            topic_id,
            partition,
            offset: 5,
            ..Default::default()
        }],
        ..ParkKeysRequest::default()
    };
    let parked = door.call(async |mut client| {
        let answer = client.park_keys(park.clone()).await?.into_inner();
        let error = answer.error.clone();
        Ok((answer, error))
    });
    assert_eq!(parked.await.expect("parked").parked_keys, 1);
    fleet.kill(door.coordinator().await).await;
    let list = async || {
        let request = ListParkedKeysRequest {
            group: "billing".to_owned(),
            ..ListParkedKeysRequest::default()
        };
        let listed = door.call(async |mut client| {
            let answer = client.list_parked_keys(request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        listed.await.expect("listed").keys
    };
    let keys = list().await;
    assert_eq!(keys.len(), 1);
    assert_eq!(
        (&keys[0].key[..], keys[0].last_offset),
        (&b"customer 7"[..], 4)
    );
    assert_eq!(door.committed().await[&(topic_id, partition)], 5);
    let unpark = UnparkKeysRequest {
        group: "billing".to_owned(),
        keys: vec![UnparkKey {
            topic_id,
            partition,
            key: "customer 7".into(),
            redriven_offset: 4,
        }],
        timeout_ms: 0,
    };
    let unparked = door.call(async |mut client| {
        let answer = client.unpark_keys(unpark.clone()).await?.into_inner();
        let error = answer.error.clone();
        Ok((answer, error))
    });
    assert!(unparked.await.expect("redriven").results[0].unparked);
    assert_eq!(list().await.len(), 0);
}
