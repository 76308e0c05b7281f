//! The gateway over HTTP, with a backend in memory.

use std::collections::BTreeMap;

use super::*;
use crate::domain::state::{OrderState, Stage};
use crate::generate::generate_accounts;
use crate::services::http::{Answer, HttpClient};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, u64>>>);

impl Backend for Memory {
    async fn place(&self, message: Message, fingerprint: u64) -> anyhow::Result<Taken> {
        let mut orders = self.0.lock().expect("sound");
        let known = *orders.entry(message.order_id).or_insert(fingerprint);
        Ok(if known == fingerprint {
            Taken::Accepted
        } else {
            Taken::Conflict
        })
    }

    async fn cancel(&self, order_id: String) -> anyhow::Result<Taken> {
        let known = self.0.lock().expect("sound").contains_key(&order_id);
        Ok(if known {
            Taken::Accepted
        } else {
            Taken::Missing
        })
    }

    async fn status(&self, order_id: &str) -> anyhow::Result<Option<OrderStatus>> {
        let known = self.0.lock().expect("sound").contains_key(order_id);
        Ok(known.then_some(OrderStatus {
            state: OrderState::InProgress,
            stage: Stage::Assessed,
            sequence: 2,
        }))
    }
}

async fn door(rate: f64) -> HttpClient {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(axum::serve(listener, routes(Memory::default(), rate)).into_future());
    HttpClient::new(address)
}

fn body(seed: u64) -> Vec<u8> {
    let account = generate_accounts(seed, 1).remove(0);
    serde_json::to_vec(&OrderRequest::of(&account, Channel::Web)).expect("JSON")
}

async fn post(client: &mut HttpClient, path: &str, key: Option<&str>, body: Vec<u8>) -> Answer {
    let headers: Vec<(&str, String)> = key
        .iter()
        .map(|key| (IDEMPOTENCY_KEY, (*key).to_owned()))
        .collect();
    client.post(path, &headers, body).await.expect("an answer")
}

#[tokio::test]
async fn an_order_is_taken_once_per_key() {
    let mut client = door(1_000.0).await;
    assert_eq!(
        client.get("/orders/o-1").await.expect("an answer").status,
        404
    );
    for _ in 0..2 {
        let answer = post(&mut client, "/orders", Some("o-1"), body(1)).await;
        assert_eq!(answer.status, 202);
    }
    let other = post(&mut client, "/orders", Some("o-1"), body(2)).await;
    assert_eq!(other.status, 409);
    let status = client.get("/orders/o-1").await.expect("an answer");
    assert_eq!(status.status, 200);
    let status: OrderStatus = serde_json::from_slice(&status.body).expect("a status");
    assert_eq!(status.state, OrderState::InProgress);
    assert_eq!(
        post(&mut client, "/orders/o-1/cancel", None, Vec::new())
            .await
            .status,
        202
    );
    assert_eq!(
        post(&mut client, "/orders/o-2/cancel", None, Vec::new())
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn what_does_not_read_is_refused() {
    let mut client = door(1_000.0).await;
    for (key, body) in [
        (None, body(1)),
        (Some("with space"), body(1)),
        (Some("o-1"), b"{}".to_vec()),
    ] {
        assert_eq!(post(&mut client, "/orders", key, body).await.status, 400);
    }
}

#[tokio::test]
async fn more_than_the_rate_is_refused() {
    let mut client = door(2.0).await;
    let mut refused = 0;
    for number in 0..10 {
        let key = format!("o-{number}");
        let answer = post(&mut client, "/orders", Some(&key), body(1)).await;
        refused += u32::from(answer.status == 429);
    }
    assert!((7..=8).contains(&refused), "{refused}");
}
