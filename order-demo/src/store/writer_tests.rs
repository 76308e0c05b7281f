//! Inbox, state and outbox change together, survive, and a second delivery changes nothing.

use super::*;
use crate::catalogue::Sku;
use crate::domain::inventory::Stock;
use crate::domain::message::{Body, Command, StockLine};
use crate::domain::role::Role;
use crate::domain::topics;
use crate::store::outbox::StoredOutbox;
use highwater_client::resilience::outbox::OutboxStore as _;

fn reserve(item: u32) -> Message {
    Message {
        event_id: format!("o/reserve-{item}"),
        order_id: "o".to_owned(),
        sequence: 1,
        causation_id: None,
        traceparent: "00-a-b-01".to_owned(),
        schema_version: 2,
        intended_start_ms: 0,
        body: Body::Command(Command::Reserve(StockLine {
            item,
            sku: Sku::PhoneLine,
            quantity: 1,
            bucket: 2,
        })),
    }
}

fn open(path: &Path, without_inbox: bool) -> Store {
    let logic: Logic = Arc::new(|context, message| Role::Inventory.handle(context, message));
    let options = StoreOptions {
        provider: None,
        without_inbox,
    };
    Store::open(path, logic, options).expect("opened")
}

fn stock(store: &Store) -> Stock {
    let value = store.database().value("stock/PHONE-LINE#2").expect("read");
    serde_json::from_slice(&value.expect("there")).expect("stock")
}

/// Opens a store again once its thread has let go of the file.
async fn reopen(path: &Path, store: Store) -> Store {
    drop(store);
    for _ in 0..2_000 {
        if Database::open(path).is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    open(path, false)
}

/// Whoever hands partitions over waits for what was said before, and not for what is said meanwhile.
#[tokio::test]
async fn what_waits_now_is_published_when_its_rows_are_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory.path().join("store"), false);
    store.published().await;
    store.handle(reserve(1)).await.expect("handled");
    let waits = tokio::spawn({
        let store = store.clone();
        async move { store.published().await }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    store.handle(reserve(2)).await.expect("handled");
    let mut outbox = StoredOutbox(store.clone());
    let rows = outbox.pending(10).await.expect("rows");
    assert_eq!(rows.len(), 2);
    let state = RelayState {
        revision: 1,
        ..RelayState::default()
    };
    assert!(outbox.save(0, &state, &[rows[0].id]).await.expect("saved"));
    waits.await.expect("it was published");
    assert_eq!(store.waiting(), 1);
}

#[tokio::test]
async fn a_message_counts_once_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = open(&path, false);
    assert_eq!(store.handle(reserve(0)).await, Ok(Handled::Now));
    assert_eq!(store.handle(reserve(0)).await, Ok(Handled::Before));
    let store = reopen(&path, store).await;
    assert_eq!(store.handle(reserve(0)).await, Ok(Handled::Before));
    assert_eq!(store.handle(reserve(1)).await, Ok(Handled::Now));
    assert_eq!((stock(&store).reserved, store.waiting()), (2, 2));
    assert!(store.database().has_handled("o/reserve-1").expect("read"));
}

#[tokio::test]
async fn without_its_inbox_a_message_counts_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory.path().join("store"), true);
    for _ in 0..2 {
        assert_eq!(store.handle(reserve(0)).await, Ok(Handled::Now));
    }
    assert_eq!(stock(&store).reserved, 2);
}

#[tokio::test]
async fn a_message_that_fails_leaves_nothing_and_its_neighbours_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory.path().join("store"), false);
    let mut wrong = reserve(5);
    wrong.body = Body::CancelAsked;
    let (good, bad) = tokio::join!(store.handle(reserve(0)), store.handle(wrong));
    assert_eq!(good, Ok(Handled::Now));
    assert!(matches!(bad, Err(LogicError::Poison(_))), "{bad:?}");
    assert_eq!((stock(&store).reserved, store.waiting()), (1, 1));
    assert!(!store.database().has_handled("o/reserve-5").expect("read"));
}

#[tokio::test]
async fn messages_together_stop_at_the_first_that_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = open(&path, false);
    let mut wrong = reserve(2);
    wrong.body = Body::CancelAsked;
    let all = vec![reserve(0), reserve(0), wrong, reserve(3)];
    let (handled, error) = store.handle_all(all).await;
    assert_eq!(handled, [Handled::Now, Handled::Before]);
    assert!(matches!(error, Some(LogicError::Poison(_))), "{error:?}");
    assert_eq!((stock(&store).reserved, store.waiting()), (1, 1));
    let store = reopen(&path, store).await;
    assert!(!store.database().has_handled("o/reserve-3").expect("read"));
    let (handled, error) = store.handle_all(vec![reserve(0), reserve(3)]).await;
    assert_eq!(
        (handled.as_slice(), error),
        ([Handled::Before, Handled::Now].as_slice(), None)
    );
    // What the relay is shown is what the file holds.
    let shown = StoredOutbox(store.clone()).pending(10).await.expect("rows");
    assert_eq!(shown, store.database().outbox().expect("read"));
    assert_eq!(shown.len(), 2);
}

#[tokio::test]
async fn rows_wait_in_order_until_their_relay_has_published_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = open(&path, false);
    for item in 0..3 {
        store.handle(reserve(item)).await.expect("handled");
    }
    let store = reopen(&path, store).await;
    let mut outbox = StoredOutbox(store.clone());
    let rows = outbox.pending(10).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows[0].record.topic, topics::SAGA_INBOX);
    assert_eq!(rows[0].record.key.as_deref(), Some(b"o".as_slice()));
    let state = RelayState {
        revision: 1,
        ..RelayState::default()
    };
    assert!(outbox.save(0, &state, &[1, 2]).await.expect("saved"));
    assert!(
        !outbox
            .save(0, &state, &[3])
            .await
            .expect("another was first")
    );
    assert_eq!(store.waiting(), 1);
    let left = outbox.pending(10).await.expect("rows");
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [3]);
    assert_eq!(outbox.load().await.expect("loaded"), Some(state));
}
