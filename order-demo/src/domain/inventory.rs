//! Inventory: stock by item and bucket. Available, reserved and consumed always add up to what was
//! there at first and what was replenished.
//!
//! Counters alone are kept, as a warehouse's table does: it is the inbox of the service that makes
//! each command count once.

use serde::{Deserialize, Serialize};

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Command, Message, Reply, StockLine};
use crate::domain::role::not_mine;

/// What every bucket holds at first.
pub const INITIAL: i64 = 1_000;
/// Below this a bucket is replenished.
pub const LOW: i64 = 200;
/// By so many.
pub const REPLENISHMENT: i64 = 1_000;

/// One bucket of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// At first.
    pub initial: i64,
    /// Added since.
    pub replenished: i64,
    /// Free.
    pub available: i64,
    /// Set aside.
    pub reserved: i64,
    /// Used up.
    pub consumed: i64,
}

impl Default for Stock {
    fn default() -> Self {
        Self {
            initial: INITIAL,
            replenished: 0,
            available: INITIAL,
            reserved: 0,
            consumed: 0,
        }
    }
}

impl Stock {
    /// Whether nothing is missing and nothing is negative.
    #[must_use]
    pub const fn adds_up(&self) -> bool {
        self.initial + self.replenished == self.available + self.reserved + self.consumed
            && self.available >= 0
            && self.reserved >= 0
            && self.consumed >= 0
    }

    /// Sets stock aside, if there is enough.
    pub fn reserve(&mut self, quantity: i64) -> bool {
        if self.available < quantity {
            return false;
        }
        self.available -= quantity;
        self.reserved += quantity;
        if self.available < LOW {
            self.available += REPLENISHMENT;
            self.replenished += REPLENISHMENT;
        }
        true
    }

    /// Uses up what was set aside.
    pub fn confirm(&mut self, quantity: i64) {
        self.reserved -= quantity;
        self.consumed += quantity;
    }

    /// Gives back what was set aside.
    pub fn release(&mut self, quantity: i64) {
        self.reserved -= quantity;
        self.available += quantity;
    }
}

/// The prefix of stock keys.
pub const PREFIX: &str = "stock/";

fn key(line: &StockLine) -> String {
    format!("{PREFIX}{}#{}", line.sku, line.bucket)
}

/// Handles a stock command.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Command(command) = &message.body else {
        return Err(not_mine(message));
    };
    let (Command::Reserve(line) | Command::Confirm(line) | Command::Release(line)) = command else {
        return Err(not_mine(message));
    };
    let key = key(line);
    let mut stock: Stock = context.get(&key)?.unwrap_or_default();
    let quantity = i64::from(line.quantity);
    let item = line.item;
    let reply = match command {
        Command::Confirm(_) => {
            stock.confirm(quantity);
            Reply::Confirmed { item }
        }
        Command::Release(_) => {
            stock.release(quantity);
            Reply::Released { item }
        }
        _ => Reply::Reserved {
            item,
            ok: stock.reserve(quantity),
        },
    };
    context.put(&key, &stock)?;
    context.send(message.answer(reply));
    Ok(())
}
