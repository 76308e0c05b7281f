//! Events on the wire: one envelope, and what it carries. JSON, so that any consumer reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::catalogue::Sku;
use crate::money::Cents;

/// The version of both event bodies; raised when their meaning changes.
pub const SCHEMA_VERSION: u32 = 1;

/// The place of an order in a run's plan, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderNumber(pub u64);

/// Tells the orders of one run from those of every other, also when they use the same accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(pub u64);

impl RunId {
    /// The id of an order; the key of every event about it.
    #[must_use]
    pub fn order_id(self, number: OrderNumber) -> String {
        format!("{:016x}-{:09}", self.0, number.0)
    }

    /// The number within this run of an order id; none when it is not of this run.
    #[must_use]
    pub fn number_of(self, order_id: &str) -> Option<OrderNumber> {
        let (run, number) = order_id.split_once('-')?;
        let number = OrderNumber(number.parse().ok()?);
        // Comparing the whole text refuses other spellings of the same numbers.
        (u64::from_str_radix(run, 16).ok()? == self.0 && self.order_id(number) == order_id)
            .then_some(number)
    }

    /// The id of the event that places an order.
    #[must_use]
    pub fn placed_event_id(self, number: OrderNumber) -> String {
        format!("placed-{}", self.order_id(number))
    }

    /// A W3C trace context for an order: constant per order, so that its events join one trace.
    #[must_use]
    pub fn traceparent(self, number: OrderNumber) -> String {
        let (high, low) = (mix(self.0), mix(self.0 ^ mix(number.0)));
        // Neither id may be all zeros.
        format!("00-{high:016x}{:016x}-{:016x}-01", low | 1, mix(low) | 1)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Spreads the bits of a number (the finalizer of the SplitMix64 generator).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The states of TM Forum's order interfaces that occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Taken in.
    Acknowledged,
    /// Being worked on: priced.
    InProgress,
}

/// What every event carries, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<B> {
    /// Unique; the same event has the same id however often it is delivered.
    pub event_id: String,
    /// The order concerned; also the record's key.
    pub order_id: String,
    /// Counts the events of one order from 1, without gaps.
    pub sequence: u32,
    /// The event that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: String,
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When the order should have been sent, in milliseconds since the Unix epoch, whether or not
    /// the sender kept up.
    pub intended_start_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub body: B,
}

/// One item of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What.
    pub sku: Sku,
    /// How far.
    pub state: State,
}

/// An order was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// How far the whole order is.
    pub state: State,
    /// Whose.
    pub account_id: String,
    /// The terms.
    pub contract: String,
    /// How it is paid.
    pub payment_method: String,
    /// What the account is charged every month.
    pub monthly_charges_cents: Cents,
    /// What was ordered.
    pub items: Vec<Item>,
}

/// One line of a priced order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What; none on the line that brings list prices to the agreed charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<Sku>,
    /// For how much.
    pub amount_cents: Cents,
}

/// An order was priced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priced {
    /// How far the whole order is.
    pub state: State,
    /// Whose.
    pub account_id: String,
    /// One line per item, then at most one adjustment.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total_cents: Cents,
    /// Where the placed event lies in the intake topic.
    pub source: Source,
}

/// The place of a record in the intake topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// The intake event.
pub type PlacedEvent = Envelope<Placed>;
/// What pricing makes of it.
pub type PricedEvent = Envelope<Priced>;

/// The event that places an account's order.
#[must_use]
pub fn place(
    run: RunId,
    number: OrderNumber,
    account: &Account,
    intended_start_ms: i64,
) -> PlacedEvent {
    let item = |sku: &Sku| Item {
        sku: *sku,
        state: State::Acknowledged,
    };
    Envelope {
        event_id: run.placed_event_id(number),
        order_id: run.order_id(number),
        sequence: 1,
        causation_id: None,
        traceparent: run.traceparent(number),
        schema_version: SCHEMA_VERSION,
        intended_start_ms,
        body: Placed {
            state: State::Acknowledged,
            account_id: account.id.clone(),
            contract: account.contract.clone(),
            payment_method: account.payment_method.clone(),
            monthly_charges_cents: account.monthly_charges,
            items: account.services.iter().map(item).collect(),
        },
    }
}
