//! The routes of the gateway, the same in every mode: place an order, cancel it, ask how far it
//! is.
//!
//! | request | answers |
//! |---|---|
//! | `POST /orders` with `Idempotency-Key` | 202 with the order's address; 400 unreadable; 409 the key was used for another order; 429 too many; 503 try again |
//! | `POST /orders/{id}/cancel` | 202; 404 |
//! | `GET /orders/{id}` | 200 with its state; 404 |

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::time::Instant;

use super::limit::TokenBucket;
use crate::domain::message::{Body, Message, OrderStatus, SCHEMA_VERSION};
use crate::domain::request::{Channel, OrderRequest};

/// The header that names when a request should have been sent, in milliseconds since 1970.
pub const INTENDED_START: &str = "x-intended-start-ms";
/// The header of the idempotency key, which becomes the order's id.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of the trace context.
const TRACEPARENT: &str = "traceparent";

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is on the disk; now or by an earlier request with the same key.
    Accepted,
    /// The key belongs to another order.
    Conflict,
    /// There is no such order.
    Missing,
}

/// Where the orders of a gateway go.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Takes an order over.
    fn place(
        &self,
        message: Message,
        fingerprint: u64,
    ) -> impl Future<Output = anyhow::Result<Taken>> + Send;

    /// Takes a wish to cancel over.
    fn cancel(&self, order_id: String) -> impl Future<Output = anyhow::Result<Taken>> + Send;

    /// How far an order is.
    fn status(
        &self,
        order_id: &str,
    ) -> impl Future<Output = anyhow::Result<Option<OrderStatus>>> + Send;
}

/// A gateway over a backend.
pub struct Door<B> {
    backend: B,
    limit: Arc<Mutex<TokenBucket>>,
    opened: Instant,
}

impl<B: Clone> Clone for Door<B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            limit: Arc::clone(&self.limit),
            opened: self.opened,
        }
    }
}

/// The routes over a backend that takes in so many orders per second.
pub fn routes<B: Backend>(backend: B, rate_limit: f64) -> Router {
    let door = Door {
        backend,
        limit: Arc::new(Mutex::new(TokenBucket::new(rate_limit))),
        opened: Instant::now(),
    };
    Router::new()
        .route("/orders", post(place::<B>))
        .route("/orders/{id}", get(status::<B>))
        .route("/orders/{id}/cancel", post(cancel::<B>))
        .with_state(door)
}

fn refuse(code: StatusCode, why: impl ToString) -> Response {
    (code, Json(json!({ "reason": why.to_string() }))).into_response()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

async fn place<B: Backend>(
    State(door): State<Door<B>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let admitted = {
        let mut limit = door.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.take(door.opened.elapsed())
    };
    if let Err(wait) = admitted {
        let seconds = wait.as_secs() + 1;
        let mut refused = refuse(StatusCode::TOO_MANY_REQUESTS, "too many orders");
        refused
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
        return refused;
    }
    let message = match read(&headers, &body) {
        Ok(message) => message,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    let id = message.order_id.clone();
    // Of what was read, so that the same order in another layout is the same order.
    let fingerprint = match &message.body {
        Body::Placed(request) => fingerprint(request),
        _ => 0,
    };
    let taken = door.backend.place(message, fingerprint).await;
    answer(&id, taken)
}

/// What tells an order from another one under the same key.
#[must_use]
pub fn fingerprint(request: &OrderRequest) -> u64 {
    // No part of it can fail to become JSON.
    crate::order::fnv(&serde_json::to_vec(request).unwrap_or_default())
}

fn answer(id: &str, taken: anyhow::Result<Taken>) -> Response {
    match taken {
        Ok(Taken::Accepted) => {
            let accepted = json!({ "id": id, "href": format!("/orders/{id}") });
            (StatusCode::ACCEPTED, Json(accepted)).into_response()
        }
        Ok(Taken::Conflict) => refuse(StatusCode::CONFLICT, "the key was used for another order"),
        Ok(Taken::Missing) => refuse(StatusCode::NOT_FOUND, "there is no such order"),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
    }
}

/// The intake message of a request; what makes it unreadable otherwise.
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Message, String> {
    let id = text(headers, IDEMPOTENCY_KEY).ok_or("there is no Idempotency-Key")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        return Err("the Idempotency-Key is not 1 to 64 letters, digits and hyphens".to_owned());
    }
    let request: OrderRequest = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let intended = text(headers, INTENDED_START).and_then(|text| text.parse().ok());
    Ok(Message {
        event_id: format!("{id}/placed"),
        order_id: id,
        sequence: 0,
        causation_id: None,
        traceparent: text(headers, TRACEPARENT).unwrap_or_default(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: intended.unwrap_or_else(unix_ms),
        body: Body::Placed(request),
    })
}

/// The message of a wish to cancel.
#[must_use]
pub fn cancel_message(order_id: &str, channel: Channel) -> Message {
    Message {
        event_id: format!("{order_id}/cancel"),
        order_id: order_id.to_owned(),
        sequence: 0,
        causation_id: None,
        traceparent: String::new(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: unix_ms(),
        body: Body::CancelRequested(channel),
    }
}

/// The wall clock, in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

async fn cancel<B: Backend>(State(door): State<Door<B>>, Path(id): Path<String>) -> Response {
    let taken = door.backend.cancel(id.clone()).await;
    answer(&id, taken)
}

async fn status<B: Backend>(State(door): State<Door<B>>, Path(id): Path<String>) -> Response {
    match door.backend.status(&id).await {
        Ok(Some(status)) => Json(status).into_response(),
        Ok(None) => refuse(StatusCode::NOT_FOUND, "there is no such order"),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
