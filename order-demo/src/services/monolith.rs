//! The whole pipeline in one process, on the same business logic, the same kind of store and the
//! same calls outside: one order is one transaction. The baseline that a broker has to justify
//! itself against. On request each transaction is replicated before it is answered, for a comparison
//! of equals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use highwater_client::{Producer, ProducerRecord};
use tokio_util::sync::CancellationToken;

use super::config::{Mode, ServiceConfig};
use super::kit::Kit;
use super::run::GATEWAY;
use super::{admin, event};
use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::request::Channel;
use crate::domain::role::Role;
use crate::domain::{status, topics};
use crate::gateway::door::{Backend, Taken, cancel_message, fingerprint, routes};

/// The prefix under which events are kept, as there is no broker to keep them.
pub const EVENTS: &str = "event/";
/// The prefix of the fingerprints of requests.
const PLACED: &str = "order/";
/// Calls outside that a plain order needs: authorise, activate, capture.
const CALLS: u64 = 3;

/// Handles a message and everything that follows from it.
///
/// # Errors
/// Those of the logic; then nothing of the order has happened.
pub fn whole(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let mut queue = VecDeque::from([message.clone()]);
    while let Some(message) = queue.pop_front() {
        if matches!(message.body, Body::Event(_)) {
            let key = format!("{EVENTS}{}/{:06}", message.order_id, message.sequence);
            context.put(&key, &message)?;
        }
        for role in Role::ALL {
            if role.topic() == message.topic() {
                role.handle(context, &message)?;
            }
        }
        queue.extend(context.take_sent());
    }
    Ok(())
}

#[derive(Clone)]
struct Monolith {
    kit: Arc<Kit>,
    /// Where transactions are replicated to.
    replicas: Option<Producer>,
}

impl Monolith {
    fn value<T: serde::de::DeserializeOwned>(&self, key: &str) -> anyhow::Result<Option<T>> {
        let value = self.kit.store.database().value(key)?;
        Ok(value
            .map(|json| serde_json::from_slice(&json))
            .transpose()?)
    }

    /// Returns when what a message led to is on the disks of most brokers: the message, and all
    /// events of its order. A repeated request repeats it, as the process may have died before.
    async fn replicate(&self, message: Message) -> anyhow::Result<()> {
        let Some(replicas) = &self.replicas else {
            return Ok(());
        };
        let id = message.order_id.clone();
        let prefix = format!("{EVENTS}{id}/");
        let mut all = vec![message];
        for (_, json) in self.kit.store.database().scan(&prefix)? {
            all.push(serde_json::from_slice(&json)?);
        }
        let record = ProducerRecord::to(topics::MONOLITH.0)
            .key(id)
            .value(serde_json::to_vec(&all)?);
        replicas.send(record).await.context("not replicated")?;
        Ok(())
    }
}

impl Backend for Monolith {
    async fn place(&self, message: Message, fingerprint: u64) -> anyhow::Result<Taken> {
        let id = message.order_id.clone();
        let key = format!("{PLACED}{id}");
        if let Some(known) = self.value::<u64>(&key)? {
            if known != fingerprint {
                return Ok(Taken::Conflict);
            }
            self.replicate(message).await?;
            return Ok(Taken::Accepted);
        }
        if let Some(dependency) = &self.kit.dependency {
            for call in 0..CALLS {
                dependency.call(fingerprint ^ call).await?;
            }
        }
        // Its fingerprint is written by the logic, in the same transaction.
        self.kit.handle(message.clone()).await?;
        self.replicate(message).await?;
        Ok(Taken::Accepted)
    }

    async fn cancel(&self, order_id: String) -> anyhow::Result<Taken> {
        if self.status(&order_id).await?.is_none() {
            return Ok(Taken::Missing);
        }
        let message = cancel_message(&order_id, Channel::Web);
        self.kit.handle(message.clone()).await?;
        self.replicate(message).await?;
        Ok(Taken::Accepted)
    }

    async fn status(&self, order_id: &str) -> anyhow::Result<Option<OrderStatus>> {
        self.value(&format!("{}{order_id}", status::PREFIX))
    }
}

/// Runs the process until it is told to stop.
///
/// # Errors
/// When it cannot start or go on.
pub async fn run(config: &ServiceConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let logic = Arc::new(|context: &mut Context<'_>, message: &Message| {
        if let Body::Placed(request) = &message.body {
            let key = format!("{PLACED}{}", message.order_id);
            context.put(&key, &fingerprint(request))?;
        }
        whole(context, message)
    });
    let kit = Arc::new(Kit::open(config, logic, true)?);
    let replicas = match config.mode {
        Mode::MonolithReplicated => {
            let client = event::connect(config, GATEWAY, &kit.budget).await?;
            Some(client.producer().linger(Duration::ZERO).build())
        }
        _ => None,
    };
    let monolith = Monolith {
        kit: Arc::clone(&kit),
        replicas,
    };
    let listener = admin::listen(config).await?;
    let routes = admin::routes()
        .with_state(kit)
        .merge(routes(monolith, config.rate_limit));
    let door = axum::serve(listener, routes);
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = door => ended.context("the door has closed"),
    }
}

#[cfg(test)]
#[path = "monolith_tests.rs"]
mod tests;
