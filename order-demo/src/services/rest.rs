//! The pipeline with its services coupled by HTTP calls: the gateway calls one after the other and
//! answers when the order has ended. The same logic, stores and providers as over the broker.
//!
//! Naive: no deadlines, no retries. A failure leaves the order where it is until its client asks
//! again under the same key. Hardened: every call has a deadline, three attempts as far as the
//! gateway's budget of retries reaches, and a circuit breaker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::future::try_join_all;
use highwater_client::resilience::{Backoff, BreakerSettings, CircuitBreaker, RetryBudget};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admin;
use super::config::{Mode, ServiceConfig};
use super::http::HttpClient;
use super::kit::Kit;
use crate::domain::context::{Context, LogicError, Outcome};
use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::request::Channel;
use crate::domain::role::Role;
use crate::domain::status;
use crate::gateway::door::{Backend, Taken, cancel_message, routes as door};
use crate::store::Handled;

/// The prefix under which a service keeps what it answered to a message.
const ANSWER: &str = "answer/";
/// The prefix of the gateway's order rows.
const PLACED: &str = "order/";
/// How long the hardened mode waits for one answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often it asks.
const ATTEMPTS: u32 = 3;

/// The logic of a service that answers its caller instead of sending messages: what it would have
/// sent is kept with its state, so that a repeated call gets the same answer.
///
/// # Errors
/// Those of the role's logic.
pub fn answering(
    role: Role,
    context: &mut Context<'_>,
    message: &Message,
) -> Result<(), LogicError> {
    role.handle(context, message)?;
    let sent = context.take_sent();
    context.put(&format!("{ANSWER}{}", message.event_id), &sent)
}

/// The route by which messages come.
pub fn routes() -> Router<Arc<Kit>> {
    Router::new().route("/handle", post(handle))
}

async fn handle(State(kit): State<Arc<Kit>>, Json(message): Json<Message>) -> Response {
    let key = format!("{ANSWER}{}", message.event_id);
    let failed = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if let Err(error) = kit.handle(message).await {
        return failed(error.to_string());
    }
    match kit.store.database().value(&key) {
        Ok(Some(sent)) => sent.into_response(),
        Ok(None) => failed("the answer is gone".to_owned()),
        Err(error) => failed(error.to_string()),
    }
}

/// Connections to one service.
struct Peer {
    address_file: PathBuf,
    idle: Mutex<Vec<HttpClient>>,
    breaker: CircuitBreaker,
}

impl Peer {
    async fn once(&self, message: &Message) -> anyhow::Result<Vec<Message>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut client = match idle {
            Some(client) => client,
            None => HttpClient::new(
                admin::address(&self.address_file).context("the service has no address")?,
            ),
        };
        let answer = client
            .post("/handle", &[], serde_json::to_vec(message)?)
            .await?;
        anyhow::ensure!(
            answer.status == 200,
            "{}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        let sent = serde_json::from_slice(&answer.body)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(client);
        Ok(sent)
    }

    async fn hardened(
        &self,
        message: &Message,
        budget: &RetryBudget,
    ) -> anyhow::Result<Vec<Message>> {
        let mut attempt = 0;
        budget.deposit();
        loop {
            attempt += 1;
            let call = async {
                let answered = timeout(DEADLINE, self.once(message)).await;
                answered.context("the deadline has passed")?
            };
            let error = match self.breaker.call(call).await {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            if attempt == ATTEMPTS {
                anyhow::bail!("{error}");
            }
            // Somebody waits for the answer, and may ask again under the same key.
            anyhow::ensure!(budget.withdraw(), "the retry budget is used up; {error}");
            let random = crate::order::fnv(message.event_id.as_bytes());
            sleep(Backoff::default().pause(attempt, random)).await;
        }
    }
}

#[derive(Clone)]
struct Coupled {
    kit: Arc<Kit>,
    peers: Arc<BTreeMap<Role, Peer>>,
    hardened: bool,
}

impl Coupled {
    async fn call(&self, role: Role, message: &Message) -> anyhow::Result<Vec<Message>> {
        let peer = self.peers.get(&role).context("there is no such service")?;
        let sent = if self.hardened {
            peer.hardened(message, &self.kit.budget).await
        } else {
            peer.once(message).await
        };
        sent.with_context(|| role.name())
    }

    /// Carries a message, and what follows from it, to the end. Services work side by side, each
    /// of them one message of the order after the other.
    async fn drive(&self, first: Message) -> anyhow::Result<()> {
        let mut wave = vec![first];
        while !wave.is_empty() {
            let mut work: BTreeMap<Role, Vec<&Message>> = BTreeMap::new();
            for message in &wave {
                for role in Role::ALL {
                    if role.topic() == message.topic() {
                        work.entry(role).or_default().push(message);
                    }
                }
            }
            let calls = work.into_iter().map(|(role, messages)| async move {
                let mut sent = Vec::new();
                for message in messages {
                    sent.extend(self.call(role, message).await?);
                }
                anyhow::Ok(sent)
            });
            let next = try_join_all(calls).await?;
            wave = next.into_iter().flatten().collect();
        }
        Ok(())
    }
}

impl Backend for Coupled {
    async fn place(&self, message: Message, fingerprint: u64) -> anyhow::Result<Taken> {
        let id = message.order_id.clone();
        let Body::Placed(request) = &message.body else {
            anyhow::bail!("no order");
        };
        let kept: (Channel, u64) = (request.channel, fingerprint);
        let key = format!("{PLACED}{id}");
        let outcome = Outcome {
            writes: [(key.clone(), Some(serde_json::to_vec(&kept)?))].into(),
            ..Outcome::default()
        };
        if self
            .kit
            .store
            .write(format!("{id}/placed"), outcome)
            .await?
            == Handled::Before
        {
            let known = self.kit.store.database().value(&key)?;
            if known != Some(serde_json::to_vec(&kept)?) {
                return Ok(Taken::Conflict);
            }
        }
        self.drive(message).await?;
        Ok(Taken::Accepted)
    }

    async fn cancel(&self, order_id: String) -> anyhow::Result<Taken> {
        let known = self
            .kit
            .store
            .database()
            .value(&format!("{PLACED}{order_id}"))?;
        let Some(known) = known else {
            return Ok(Taken::Missing);
        };
        let (channel, _): (Channel, u64) = serde_json::from_slice(&known)?;
        self.drive(cancel_message(&order_id, channel)).await?;
        Ok(Taken::Accepted)
    }

    async fn status(&self, order_id: &str) -> anyhow::Result<Option<OrderStatus>> {
        let peer = self
            .peers
            .get(&Role::Status)
            .context("there is no status view")?;
        let address = admin::address(&peer.address_file).context("it has no address")?;
        let path = format!("/value/{}{order_id}", status::PREFIX);
        let answer = HttpClient::new(address).get(&path).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&answer.body)?))
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start or go on.
pub async fn run_gateway(config: &ServiceConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let nothing = Arc::new(|_: &mut Context<'_>, message: &Message| {
        let id = &message.event_id;
        Err(LogicError::Poison(format!(
            "the gateway handles no messages: {id}"
        )))
    });
    let kit = Arc::new(Kit::open(config, nothing, false)?);
    let beside = config.address_file.parent().context("no directory")?;
    let peer = |role: Role| Peer {
        address_file: beside.join(format!("{role}.address")),
        idle: Mutex::default(),
        breaker: CircuitBreaker::new(BreakerSettings::default()),
    };
    let backend = Coupled {
        kit: Arc::clone(&kit),
        peers: Arc::new(
            Role::ALL
                .into_iter()
                .map(|role| (role, peer(role)))
                .collect(),
        ),
        hardened: config.mode == Mode::RestHardened,
    };
    let listener = admin::listen(config).await?;
    let routes = admin::routes()
        .with_state(kit)
        .merge(door(backend, config.rate_limit));
    let door = axum::serve(listener, routes);
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = door => ended.context("the door has closed"),
    }
}
