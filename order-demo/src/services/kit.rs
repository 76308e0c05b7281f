//! What every service is made of, however messages reach it: its store, its provider, its
//! counters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use highwater_client::resilience::RetryBudget;
use thiserror::Error;

use super::admin::Counters;
use super::config::{Mode, Mutant, ServiceConfig};
use super::control::Control;
use super::dependency::{Dependency, Unavailable};
use super::outside::Provider;
use super::prices::PriceCache;
use super::rest;
use crate::domain::catalogue;
use crate::domain::context::LogicError;
use crate::domain::message::{Body, Message};
use crate::domain::role::Role;
use crate::gateway::door::unix_ms;
use crate::store::{Handled, Store, StoreOptions};

/// A service's parts.
pub struct Kit {
    /// Its store.
    pub store: Store,
    /// What can be changed while it runs.
    pub control: Arc<Control>,
    /// What it counts.
    pub counters: Counters,
    /// What it calls outside.
    pub dependency: Option<Dependency>,
    /// What every layer of it may retry: handlers, calls outside, calls of other services and of
    /// brokers. One for all of them, so that a retry of a retry does not multiply calls.
    pub budget: Arc<RetryBudget>,
    /// The catalogue's prices, where its topic says them.
    pub prices: Option<PriceCache>,
}

/// A message was not handled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandleError {
    /// By the logic.
    #[error(transparent)]
    Logic(#[from] LogicError),
    /// Because of what the service calls.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

type Logic = crate::store::Logic;

impl Kit {
    /// Opens the store and whatever else a service with this logic needs.
    ///
    /// # Errors
    /// When its files cannot be opened.
    pub fn open(config: &ServiceConfig, logic: Logic, outside: bool) -> anyhow::Result<Self> {
        let control = Arc::new(Control::default());
        let provider = match &config.effects {
            Some(path) if outside => {
                let forgets = config.mutant == Some(Mutant::DoubleCharge);
                let provider = Provider::open(path, forgets);
                Some(provider.with_context(|| format!("journal {}", path.display()))?)
            }
            _ => None,
        };
        let options = StoreOptions {
            provider,
            without_inbox: config.mutant == Some(Mutant::NoInbox),
        };
        let store = Store::open(&config.store, logic, options)
            .with_context(|| format!("store {}", config.store.display()))?;
        let service_time = Duration::from_micros(config.service_time_us);
        let budget = Arc::new(RetryBudget::default());
        let dependency = outside.then(|| {
            let parts = (Arc::clone(&control), Arc::clone(&budget));
            Dependency::new(parts, service_time)
        });
        Ok(Self {
            store,
            control,
            counters: Counters::default(),
            dependency,
            budget,
            prices: None,
        })
    }

    /// The parts of the service with this role.
    ///
    /// # Errors
    /// As [`Kit::open`].
    pub fn of(role: Role, config: &ServiceConfig) -> anyhow::Result<Self> {
        let prices = match (role, config.mode) {
            (Role::Catalogue, Mode::Event) => Some(PriceCache::default()),
            _ => None,
        };
        let logic: Logic = match (config.mode, prices.clone()) {
            (Mode::RestNaive | Mode::RestHardened, _) => {
                Arc::new(move |context, message| rest::answering(role, context, message))
            }
            (_, Some(prices)) => {
                Arc::new(move |context, message| catalogue::handle(context, message, &prices))
            }
            (_, None) => Arc::new(move |context, message| role.handle(context, message)),
        };
        let kit = Self::open(config, logic, role.calls_outside())?;
        Ok(Self { prices, ..kit })
    }

    /// Handles a message to its end: the call outside, then the commit.
    ///
    /// # Errors
    /// [`HandleError`]; then nothing has happened.
    pub async fn handle(&self, message: Message) -> Result<(), HandleError> {
        let (finished, error) = self.handle_all(vec![message]).await;
        match error {
            Some(error) => Err(error),
            None => {
                debug_assert_eq!(finished, 1, "one was handed over");
                Ok(())
            }
        }
    }

    /// Handles messages in order, in one commit, up to the first that fails: how many are handled,
    /// and why the next one is not.
    pub async fn handle_all(&self, mut messages: Vec<Message>) -> (usize, Option<HandleError>) {
        let mut unavailable = None;
        if let Some(dependency) = &self.dependency {
            for (at, message) in messages.iter().enumerate() {
                if !matches!(message.body, Body::Command(_)) {
                    continue;
                }
                let random = crate::order::fnv(message.event_id.as_bytes());
                if let Err(error) = dependency.call(random).await {
                    unavailable = Some((at, error));
                    break;
                }
            }
        }
        if let Some((at, _)) = &unavailable {
            messages.truncate(*at);
        }
        let (handled, error) = self.store.handle_all(messages).await;
        let now = handled.iter().filter(|handled| **handled == Handled::Now);
        let now = now.count() as u64;
        let again = handled.len() as u64 - now;
        let error = match (error, unavailable) {
            (Some(error), _) => Some(HandleError::Logic(error)),
            (None, Some((_, error))) => Some(HandleError::Unavailable(error)),
            (None, None) => None,
        };
        if self.counters.handled.fetch_add(now, Ordering::Relaxed) == 0 && now > 0 {
            self.counters.first_ms.store(unix_ms(), Ordering::Relaxed);
        }
        self.counters.again.fetch_add(again, Ordering::Relaxed);
        let failed = u64::from(error.is_some());
        self.counters.failed.fetch_add(failed, Ordering::Relaxed);
        (handled.len(), error)
    }
}
