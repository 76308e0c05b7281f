//! The admin HTTP server: metrics for Prometheus, health for supervisors and people.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::health::{Check, CheckState, Health};
use super::metrics::Metrics;

/// What the admin server shows.
#[derive(Clone)]
pub struct Admin {
    health: Arc<dyn Health>,
    metrics: Metrics,
}

impl Admin {
    /// Shows this broker's health and this process's metrics.
    #[must_use]
    pub fn new(health: Arc<dyn Health>, metrics: Metrics) -> Self {
        Self { health, metrics }
    }

    /// Serves `/metrics`, `/livez`, `/readyz` and `/healthz` until `stop`, then lets the requests
    /// in hand finish.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        axum::serve(listener, self.router())
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .route("/healthz", get(healthz))
            .with_state(self)
    }
}

#[derive(Deserialize)]
struct Detail {
    /// Present with any value, or with none: one line per check.
    verbose: Option<String>,
}

#[derive(Serialize)]
struct Report {
    live: bool,
    ready: bool,
    checks: Vec<Check>,
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let format = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    let mut text = admin.metrics.render();
    text.push_str(&admin.health.exposition());
    (format, text).into_response()
}

async fn live(State(admin): State<Admin>) -> Response {
    verdict(admin.health.live(), "live", "not live")
}

/// Not ready names what is missing, so that the probe's own log is an explanation.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.health.ready() {
        return verdict(true, "ready", "");
    }
    let mut text = "not ready\n".to_owned();
    let missing = admin
        .health
        .checks()
        .into_iter()
        .filter(|check| check.state != CheckState::Ok);
    write_checks(&mut text, missing);
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Healthy is live, ready and without a failed check; a warning is shown but is no failure.
async fn healthz(
    State(admin): State<Admin>,
    Query(detail): Query<Detail>,
    headers: HeaderMap,
) -> Response {
    let (live, ready) = (admin.health.live(), admin.health.ready());
    let checks = admin.health.checks();
    let healthy = live && ready && checks.iter().all(|check| check.state != CheckState::Failed);
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if json {
        return (
            status,
            Json(Report {
                live,
                ready,
                checks,
            }),
        )
            .into_response();
    }
    let mut text = if healthy {
        "healthy\n"
    } else {
        "not healthy\n"
    }
    .to_owned();
    if detail.verbose.is_some() {
        write_checks(&mut text, checks);
    }
    (status, text).into_response()
}

fn verdict(good: bool, yes: &'static str, no: &'static str) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, format!("{}\n", if good { yes } else { no })).into_response()
}

fn write_checks(text: &mut String, checks: impl IntoIterator<Item = Check>) {
    for Check {
        name,
        state,
        sentence,
    } in checks
    {
        let state = match state {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Failed => "failed",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{state:7} {name}: {sentence}");
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
