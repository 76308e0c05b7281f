//! A service's HTTP door for whoever runs it: counters, changes, and in the modes without a broker
//! its messages.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::config::ServiceConfig;
use super::control::Change;
use super::dependency::CallCounts;
use super::kit::Kit;

/// What a service counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages handled for the first time since it started.
    pub handled: AtomicU64,
    /// Messages that came again.
    pub again: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// When it handled its first message since it started; when partitions last came, and when some
    /// last went, with no handler at work on them any more. In milliseconds since 1970; 0: not yet.
    pub first_ms: AtomicI64,
    /// See `first_ms`.
    pub came_ms: AtomicI64,
    /// See `first_ms`.
    pub went_ms: AtomicI64,
}

/// What a service's one budget of retries has been asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Calls: messages handed over, calls outside, calls of other services and of brokers.
    pub calls: u64,
    /// Further attempts at them that were allowed.
    pub retries: u64,
    /// Times that a further attempt was refused, and put off or given up.
    pub refused: u64,
}

/// Its counters, as told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The process.
    pub pid: u32,
    /// Messages handled for the first time since it started.
    pub handled: u64,
    /// Messages that came again, and were suppressed.
    pub again: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that wait to be published.
    pub waiting: u64,
    /// Commits of its store.
    pub commits: u64,
    /// Its calls outside, if it makes any.
    pub calls: Option<CallCounts>,
    /// What it has retried.
    pub retries: Retries,
    /// When it handled its first message since it started, in milliseconds since 1970; 0: not yet.
    pub first_ms: i64,
    /// When partitions last came to it, likewise.
    pub came_ms: i64,
    /// When partitions last went and it no longer worked on them, likewise.
    pub went_ms: i64,
}

/// Opens the door and writes down its address, whole or not at all.
///
/// # Errors
/// When the address cannot be listened on or written down.
pub async fn listen(config: &ServiceConfig) -> anyhow::Result<TcpListener> {
    let address = config.listen.as_deref().unwrap_or("127.0.0.1:0");
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let path = &config.address_file;
    let half = path.with_extension("new");
    let mut file = std::fs::File::create(&half)?;
    write!(file, "{}", listener.local_addr()?)?;
    std::fs::rename(&half, path)?;
    Ok(listener)
}

/// The address that a service has written down.
#[must_use]
pub fn address(file: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The routes that every service has.
pub fn routes() -> Router<Arc<Kit>> {
    Router::new()
        .route("/stats", get(stats))
        .route("/change", post(change))
        .route("/value/{*key}", get(value))
}

async fn stats(State(kit): State<Arc<Kit>>) -> Json<Stats> {
    Json(kit.stats())
}

/// A value of its store, as the logic has written it.
async fn value(State(kit): State<Arc<Kit>>, UrlPath(key): UrlPath<String>) -> Response {
    match kit.store.database().value(&key) {
        Ok(Some(json)) => json.into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn change(State(kit): State<Arc<Kit>>, Json(change): Json<Change>) -> Json<Stats> {
    kit.control.apply(change);
    kit.store.set_repaired(kit.control.repaired());
    Json(kit.stats())
}

impl Kit {
    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let budget = self.budget.counts();
        Stats {
            pid: std::process::id(),
            handled: self.counters.handled.load(Ordering::Relaxed),
            again: self.counters.again.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
            waiting: self.store.waiting(),
            commits: self.store.commits(),
            calls: self.dependency.as_ref().map(|outside| outside.counts()),
            retries: Retries {
                calls: budget.calls,
                retries: budget.retries,
                refused: budget.refused,
            },
            first_ms: self.counters.first_ms.load(Ordering::Relaxed),
            came_ms: self.counters.came_ms.load(Ordering::Relaxed),
            went_ms: self.counters.went_ms.load(Ordering::Relaxed),
        }
    }
}
