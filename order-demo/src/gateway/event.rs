//! The gateway over the broker: the order's row and its message are written in one commit, and a
//! relay publishes the message. Between the two no order can be lost.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::door::{Backend, Taken, cancel_message, routes};
use super::statuses::Statuses;
use crate::domain::context::{LogicError, Outcome};
use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::request::Channel;
use crate::domain::state::{OrderState, Stage};
use crate::services::config::ServiceConfig;
use crate::services::kit::Kit;
use crate::services::{admin, event, run::GATEWAY};
use crate::store::{Handled, Store};

/// What is kept of an order that was taken in: its channel, and the fingerprint of the request.
type Row = (Channel, u64);

/// The prefix of the gateway's order rows.
pub const PREFIX: &str = "order/";

#[derive(Clone)]
struct Outboxed {
    store: Store,
    statuses: Statuses,
}

fn row(store: &Store, order_id: &str) -> anyhow::Result<Option<Row>> {
    let value = store.database().value(&format!("{PREFIX}{order_id}"))?;
    Ok(value.map(|row| serde_json::from_slice(&row)).transpose()?)
}

impl Backend for Outboxed {
    async fn place(&self, message: Message, fingerprint: u64) -> anyhow::Result<Taken> {
        let Body::Placed(request) = &message.body else {
            anyhow::bail!("no order");
        };
        let id = message.order_id.clone();
        let kept: Row = (request.channel, fingerprint);
        let outcome = Outcome {
            writes: [(format!("{PREFIX}{id}"), Some(serde_json::to_vec(&kept)?))].into(),
            sent: vec![message],
        };
        match self.store.write(format!("{id}/placed"), outcome).await? {
            Handled::Now => Ok(Taken::Accepted),
            Handled::Before => match row(&self.store, &id)? {
                Some((_, known)) if known == fingerprint => Ok(Taken::Accepted),
                _ => Ok(Taken::Conflict),
            },
        }
    }

    async fn cancel(&self, order_id: String) -> anyhow::Result<Taken> {
        let Some((channel, _)) = row(&self.store, &order_id)? else {
            return Ok(Taken::Missing);
        };
        let outcome = Outcome {
            sent: vec![cancel_message(&order_id, channel)],
            ..Outcome::default()
        };
        let unless = format!("{order_id}/cancel");
        self.store.write(unless, outcome).await?;
        Ok(Taken::Accepted)
    }

    async fn status(&self, order_id: &str) -> anyhow::Result<Option<OrderStatus>> {
        if let Some(status) = self.statuses.get(order_id) {
            return Ok(Some(status));
        }
        // Taken in, and not told of yet.
        Ok(row(&self.store, order_id)?.map(|_| OrderStatus {
            state: OrderState::Acknowledged,
            stage: Stage::Received,
            sequence: 0,
        }))
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start or go on.
pub async fn run(config: &ServiceConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let nothing = Arc::new(
        |_: &mut crate::domain::context::Context<'_>, message: &Message| {
            let id = &message.event_id;
            Err(LogicError::Poison(format!(
                "the gateway handles no messages: {id}"
            )))
        },
    );
    let kit = Arc::new(Kit::open(config, nothing, false)?);
    let client = event::connect(config, GATEWAY, &kit.budget).await?;
    let statuses = Statuses::default();
    let following = tokio::spawn(statuses.clone().follow(client.clone()));
    let relaying = tokio::spawn(event::relay(client, GATEWAY.to_owned(), kit.store.clone()));
    let backend = Outboxed {
        store: kit.store.clone(),
        statuses,
    };
    let listener = admin::listen(config).await?;
    let routes = admin::routes()
        .with_state(Arc::clone(&kit))
        .merge(routes(backend, config.rate_limit));
    let door = axum::serve(listener, routes);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = door => ended.context("the door has closed"),
    };
    event::last_words(&kit.store).await;
    relaying.abort();
    following.abort();
    ended
}
