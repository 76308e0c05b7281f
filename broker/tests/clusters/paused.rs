//! A leader that stands still while others go on without it, and then believes that nothing happened.

use highwater_client::NewTopic;
use highwater_proto::v1::offset_query::At;
use highwater_proto::v1::{ErrorCode, ListOffsetsRequest, OffsetQuery, Outcome};
use tokio::time::timeout;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic, send};
use super::raw::{Raw, batch};

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_never_answers_as_if_it_still_led() {
    let fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders")).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 100).await;

    let leader = fleet.leader(&client, "orders", 0).await;
    let mut old = Raw::to(&fleet, &client, "orders", (0, leader)).await;
    fleet.pause(leader);
    // Acknowledged by the others, while the old leader sleeps.
    for (value, outcome) in send(&producer, "orders", 1_000..1_100).await {
        journal.note(&outcome.expect("acknowledged"), &value);
    }
    let end = journal.stored.len() as u64;

    // Both questions wait for it when it wakes up, and its clock of leadership has not run.
    let query = OffsetQuery {
        topic_id: old.topic,
        partition: 0,
        at: Some(At::Latest(true)),
    };
    let mut log = old.log.clone();
    let asked = tokio::spawn(async move {
        let queries = vec![query];
        log.list_offsets(ListOffsetsRequest { queries }).await
    });
    let written = tokio::spawn(async move { old.one(batch(&["from the past"]).build()).await });
    fleet.resume(leader);
    let asked = timeout(PATIENCE, asked).await.expect("in time");
    let found = asked.expect("no panic").expect("an answer").into_inner();
    let found = &found.results[0];
    match &found.error {
        None => assert!(
            found.offset >= end,
            "{} is in the past: {end}",
            found.offset
        ),
        Some(error) => {
            eprintln!("  says: {} ({})", error.message, error.code().as_str_name());
            let codes = [ErrorCode::NotLeader, ErrorCode::LeaderUnavailable];
            assert!(codes.contains(&error.code()), "{error:?}");
        }
    }
    let written = timeout(PATIENCE, written).await.expect("in time");
    let written = written.expect("no panic");
    eprintln!("  a write: {:?}, {:?}", written.outcome(), written.error);
    match written.outcome() {
        Outcome::Acknowledged => assert!(written.base_offset >= end, "{written:?}"),
        Outcome::Rejected | Outcome::Unknown => {}
        Outcome::Unspecified => panic!("{written:?}"),
    }

    // Whatever became of that one write, all replicas agree, and nothing acknowledged is gone.
    eventually("the old leader has caught up", async || {
        let (_, health) = fleet.http(leader, "/healthz?verbose").await;
        health.contains("ok      replication").then_some(())
    })
    .await;
    let unknown = ["from the past".to_owned()];
    journal.check_with(&client, &fleet.nodes(), &unknown).await;
}
