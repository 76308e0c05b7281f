//! Connecting: connectors, deadlines, and who is asked.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fake::FakeCluster;
use highwater_client::resilience::{BudgetSettings, RetryBudget};
use highwater_client::{
    AdminError, Client, ConnectError, ErrorCode, NewTopic, NodeId, ProducerRecord, ShardId,
};
use tokio::net::TcpStream;
use tower::service_fn;

#[tokio::test]
async fn a_connector_supplies_every_connection() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let address = cluster.brokers();
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dialled);
    // The names mean nothing to the operating system: only the connector knows them.
    cluster
        .state
        .lock()
        .addresses
        .insert(1, "broker-one.invalid:9094".to_owned());
    let connector = service_fn(move |uri: http::Uri| {
        assert_eq!(uri.host(), Some("broker-one.invalid"));
        count.fetch_add(1, Ordering::SeqCst);
        TcpStream::connect(address.clone())
    });
    let client = Client::builder()
        .brokers(["broker-one.invalid:9094"])
        .connector(connector)
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build();
    producer
        .send(ProducerRecord::to("t").value("v"))
        .await
        .unwrap();
    assert_eq!(
        dialled.load(Ordering::SeqCst),
        2,
        "one for control, one for data"
    );
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline_as_unknown() {
    let cluster = FakeCluster::start(2).await;
    let admin = cluster
        .client()
        .await
        .admin()
        .timeout(Duration::from_millis(200));
    let moved = admin.transfer_leader(ShardId(1), NodeId(2)).await;
    assert!(matches!(moved, Err(AdminError::Unknown(_))), "{moved:?}");
}

#[tokio::test]
async fn nobody_there_is_told_with_the_addresses() {
    let refused = Client::builder()
        .brokers(["127.0.0.1:1"])
        .request_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::NoBroker { .. }));
    assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");
    assert!(Client::builder().build().is_err());
    let none = Client::connect("highwater://").await;
    assert!(matches!(none, Err(ConnectError::ConnectionString(_))));
}

/// A broker that is overloaded is asked again once for each call that was made, and not until the
/// deadline as often as pauses allow.
#[tokio::test]
async fn calls_are_made_again_as_far_as_the_budget_reaches() {
    let cluster = FakeCluster::start(1).await;
    let budget = Arc::new(RetryBudget::new(BudgetSettings {
        window: Duration::from_secs(600),
        percent: 100,
        free_per_second: 0,
    }));
    let builder = cluster.builder().retry_budget(Arc::clone(&budget));
    let client = builder.connect().await.unwrap();
    let overloaded = [ErrorCode::Overloaded; 100];
    cluster.state.lock().create_faults.extend(overloaded);
    let admin = client.admin().timeout(Duration::from_secs(2));
    admin.create_topic(NewTopic::named("t")).await.unwrap_err();
    assert_eq!(cluster.state.lock().create_faults.len(), 98);
    let counts = budget.counts();
    assert_eq!((counts.calls, counts.retries), (1, 1));
    assert!(counts.refused > 1, "{counts:?}");
}
