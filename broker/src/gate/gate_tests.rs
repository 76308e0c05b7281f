//! The gate bounds bytes in flight and closes with a reason.

use super::*;

#[tokio::test]
async fn bytes_come_back_when_the_reply_is_out() {
    let gate = Gate::new(4096);
    let first = gate.admit(4096).await.expect("open");
    assert_eq!(gate.in_flight_bytes(), 4096);
    let second = tokio::spawn({
        let gate = gate.clone();
        async move { gate.admit(1).await.is_ok() }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.expect("joined"));
    assert_eq!(gate.in_flight_bytes(), 0);
}

#[tokio::test]
async fn a_request_larger_than_the_budget_takes_all_of_it() {
    let gate = Gate::new(2048);
    let all = gate.admit(1 << 20).await.expect("open");
    assert_eq!(gate.in_flight_bytes(), 2048);
    drop(all);
}

#[tokio::test]
async fn a_closed_gate_says_why() {
    let gate = Gate::new(2048);
    gate.set_storage_full(true);
    assert_eq!(gate.admit(1).await.err(), Some(Closed::StorageFull));
    gate.set_storage_full(false);
    assert!(gate.admit(1).await.is_ok());
    gate.drain();
    assert_eq!(gate.admit(1).await.err(), Some(Closed::ShuttingDown));
}
