//! What business logic sees of its surroundings: a store, an outside world, and the messages it
//! sends. Writes and messages of one message take effect together or not at all.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::domain::message::Message;
use crate::money::Cents;

/// Reads of a service's own store.
pub trait Lookup {
    /// The value of a key, as it was when the message came.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError>;
}

/// What happens outside of the pipeline and cannot be taken back by a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectKind {
    /// Money was set aside.
    Authorise,
    /// Money was taken.
    Capture,
    /// Money was given back.
    Void,
    /// Services were switched on.
    Activate,
    /// Services were switched off.
    Deactivate,
}

/// The outside world: a payment provider, a network. It takes an idempotency key, as real ones do.
pub trait Outside {
    /// Has an effect, once per key.
    fn effect(&mut self, kind: EffectKind, order_id: &str, amount: Cents);
}

/// An outside world where nothing happens.
#[derive(Debug, Default)]
pub struct Nowhere;

impl Outside for Nowhere {
    fn effect(&mut self, _: EffectKind, _: &str, _: Cents) {}
}

/// Why a message was not handled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogicError {
    /// No attempt can cure it: the message itself is bad.
    #[error("{0}")]
    Poison(String),
    /// The store failed, or holds something that does not read.
    #[error("store: {0}")]
    Store(String),
}

/// The surroundings of one message.
pub struct Context<'a> {
    lookup: &'a dyn Lookup,
    outside: &'a mut dyn Outside,
    /// Whether broken lists of prices were repaired.
    pub repaired: bool,
    writes: BTreeMap<String, Option<Vec<u8>>>,
    sent: Vec<Message>,
}

/// What a message leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Keys to be written; none deletes.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Messages to be sent.
    pub sent: Vec<Message>,
}

impl<'a> Context<'a> {
    /// Surroundings without writes or messages yet.
    pub fn new(lookup: &'a dyn Lookup, outside: &'a mut dyn Outside, repaired: bool) -> Self {
        Self {
            lookup,
            outside,
            repaired,
            writes: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// What this message leads to.
    #[must_use]
    pub fn finish(self) -> Outcome {
        Outcome {
            writes: self.writes,
            sent: self.sent,
        }
    }

    /// The value of a key, with this message's own writes.
    ///
    /// # Errors
    /// When the store cannot be read, or its value does not read.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LogicError> {
        let bytes = match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.lookup.get(key)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| LogicError::Store(format!("{key} does not read: {error}")))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), LogicError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| LogicError::Store(format!("{key} cannot be written: {error}")))?;
        self.writes.insert(key.to_owned(), Some(bytes));
        Ok(())
    }

    /// Adds to a number; a missing one is zero.
    ///
    /// # Errors
    /// As [`Context::get`].
    pub fn add(&mut self, key: &str, amount: i64) -> Result<i64, LogicError> {
        let sum = self.get::<i64>(key)?.unwrap_or(0).saturating_add(amount);
        self.put(key, &sum)?;
        Ok(sum)
    }

    /// Sends a message.
    pub fn send(&mut self, message: Message) {
        self.sent.push(message);
    }

    /// Takes the messages back that were sent so far, for whoever carries them on by itself.
    pub fn take_sent(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }

    /// Has an effect outside.
    pub fn effect(&mut self, kind: EffectKind, order_id: &str, amount: Cents) {
        self.outside.effect(kind, order_id, amount);
    }
}
