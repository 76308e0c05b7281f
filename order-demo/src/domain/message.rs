//! What travels between the services: one envelope, and what it carries. JSON, so that any
//! consumer can read it.

use serde::{Deserialize, Serialize};

use crate::catalogue::Sku;
use crate::domain::request::{Channel, OrderRequest};
use crate::domain::state::{OrderState, Stage};
use crate::domain::topics;
use crate::money::Cents;

/// The version of all bodies; raised when their meaning changes.
pub const SCHEMA_VERSION: u32 = 2;

/// What every message carries, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Unique; the same message has the same id however often it is made or delivered.
    pub event_id: String,
    /// The order concerned; empty for messages about none.
    pub order_id: String,
    /// The number of the order's latest event; for an event its own, from 1 without gaps.
    pub sequence: u32,
    /// The message that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: String,
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When the order should have been sent, in milliseconds since the Unix epoch, whether or not
    /// the sender kept up.
    pub intended_start_ms: i64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body {
    /// An order was placed.
    Placed(OrderRequest),
    /// Its customer wants it cancelled.
    CancelRequested(Channel),
    /// The order is sound.
    Valid(OrderRequest),
    /// The order is not sound.
    Invalid {
        /// Whose.
        account_id: String,
        /// Why.
        reason: String,
    },
    /// A wish to cancel, to be decided by the processor.
    CancelAsked,
    /// A service is to do something.
    Command(Command),
    /// A service has done something, or not.
    Reply(Reply),
    /// Something has happened to an order.
    Event(OrderEvent),
    /// A customer is to be told.
    Notify {
        /// Whom.
        account_id: String,
        /// What.
        text: String,
    },
    /// How far an order is, for whoever asks.
    Status(OrderStatus),
    /// A link of an order's audit chain.
    Audit(AuditEntry),
    /// An item of the catalogue.
    Item {
        /// Which.
        sku: Sku,
        /// Its list price per month.
        list_price: Cents,
    },
}

/// One line of a price or an invoice; without an item it is an adjustment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceLine {
    /// What.
    pub sku: Option<Sku>,
    /// How much per month.
    pub amount: Cents,
}

/// What a service is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Find the price.
    Price {
        /// Of what.
        items: Vec<Sku>,
        /// What the account is charged.
        monthly_charges: Cents,
        /// By which list.
        price_book: String,
    },
    /// Find out whether the account may have it.
    Assess {
        /// Its credit class.
        credit_class: String,
    },
    /// Set stock aside.
    Reserve(StockLine),
    /// Use up what was set aside.
    Confirm(StockLine),
    /// Give back what was set aside.
    Release(StockLine),
    /// Set money aside.
    Authorise(Payment),
    /// Take the money that was set aside.
    Capture(Payment),
    /// Give back the money that was set aside.
    Void(Payment),
    /// Switch services on.
    Activate {
        /// Where.
        site: String,
        /// Which.
        items: Vec<Sku>,
    },
    /// Switch services off.
    Deactivate,
    /// Write the invoice.
    Invoice {
        /// Whose.
        account_id: String,
        /// Its lines.
        lines: Vec<PriceLine>,
        /// What was captured.
        captured: Cents,
    },
}

/// One item's stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLine {
    /// The item's place in the order.
    pub item: u32,
    /// What.
    pub sku: Sku,
    /// How many.
    pub quantity: u32,
    /// Which part of the stock.
    pub bucket: u32,
}

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Whose.
    pub account_id: String,
    /// By which means.
    pub token: String,
    /// How much.
    pub amount: Cents,
}

/// What a service answers to the processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The price.
    Priced {
        /// Its lines.
        lines: Vec<PriceLine>,
    },
    /// Whether the account may have it.
    Assessed {
        /// Whether.
        eligible: bool,
    },
    /// Whether an item's stock was set aside.
    Reserved {
        /// The item's place in the order.
        item: u32,
        /// Whether.
        ok: bool,
    },
    /// An item's stock is used up.
    Confirmed {
        /// The item's place in the order.
        item: u32,
    },
    /// An item's stock is free again.
    Released {
        /// The item's place in the order.
        item: u32,
    },
    /// Whether the money was set aside.
    Authorised {
        /// Whether.
        ok: bool,
    },
    /// Whether the money was taken.
    Captured {
        /// Whether.
        ok: bool,
    },
    /// The money is free again.
    Voided,
    /// Whether the services work.
    Activated {
        /// Whether.
        ok: bool,
    },
    /// The services are off again.
    Deactivated,
    /// The invoice is written.
    Invoiced {
        /// Its number.
        number: u64,
    },
}

/// The state of one item of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemState {
    /// What.
    pub sku: Sku,
    /// How far.
    pub state: OrderState,
}

/// Something has happened to an order. Written by the processor alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEvent {
    /// What.
    pub stage: Stage,
    /// The order's state from now on.
    pub state: OrderState,
    /// Whose order.
    pub account_id: String,
    /// The money concerned, where there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Cents>,
    /// Why, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every item's state, with the first event and with the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemState>,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// Its state.
    pub state: OrderState,
    /// What happened last.
    pub stage: Stage,
    /// The number of that event.
    pub sequence: u32,
}

/// A link of an order's audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The event's id.
    pub of: String,
    /// The event's number.
    pub sequence: u32,
    /// The hash of the link before, in hexadecimal; empty for the first.
    pub previous: String,
    /// SHA-256 over `previous` and the event's JSON, in hexadecimal.
    pub hash: String,
}

impl Message {
    /// The topic that such a message goes to.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        match &self.body {
            Body::Placed(request) => intake(request.channel),
            Body::CancelRequested(channel) => intake(*channel),
            Body::Valid(_) | Body::Invalid { .. } | Body::CancelAsked | Body::Reply(_) => {
                topics::SAGA_INBOX
            }
            Body::Command(command) => command.topic(),
            Body::Event(_) => topics::EVENTS,
            Body::Notify { .. } => topics::NOTIFICATION,
            Body::Status(_) => topics::STATUS,
            Body::Audit(_) => topics::AUDIT,
            Body::Item { .. } => topics::ITEMS,
        }
    }

    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.body {
            Body::Command(
                Command::Reserve(line) | Command::Confirm(line) | Command::Release(line),
            ) => {
                format!("{}#{}", line.sku, line.bucket)
            }
            Body::Command(
                Command::Authorise(payment) | Command::Capture(payment) | Command::Void(payment),
            ) => payment.account_id.clone(),
            Body::Command(Command::Invoice { account_id, .. })
            | Body::Notify { account_id, .. } => account_id.clone(),
            Body::Item { sku, .. } => sku.to_string(),
            _ => self.order_id.clone(),
        }
    }

    /// A message that this one causes, under an id of its own.
    #[must_use]
    pub fn causes(&self, event_id: String, body: Body) -> Self {
        Self {
            event_id,
            order_id: self.order_id.clone(),
            sequence: self.sequence,
            causation_id: Some(self.event_id.clone()),
            traceparent: self.traceparent.clone(),
            schema_version: SCHEMA_VERSION,
            intended_start_ms: self.intended_start_ms,
            body,
        }
    }

    /// The answer to this command.
    #[must_use]
    pub fn answer(&self, reply: Reply) -> Self {
        self.causes(format!("{}/re", self.event_id), Body::Reply(reply))
    }
}

const fn intake(channel: Channel) -> &'static str {
    match channel {
        Channel::Web => topics::INTAKE_WEB,
        Channel::Agent => topics::INTAKE_AGENT,
    }
}

impl Command {
    /// Its name within an order, part of its message's id: an order has each at most once.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Price { .. } => "price".to_owned(),
            Self::Assess { .. } => "assess".to_owned(),
            Self::Reserve(line) => format!("reserve-{}", line.item),
            Self::Confirm(line) => format!("confirm-{}", line.item),
            Self::Release(line) => format!("release-{}", line.item),
            Self::Authorise(_) => "authorise".to_owned(),
            Self::Capture(_) => "capture".to_owned(),
            Self::Void(_) => "void".to_owned(),
            Self::Activate { .. } => "activate".to_owned(),
            Self::Deactivate => "deactivate".to_owned(),
            Self::Invoice { .. } => "invoice".to_owned(),
        }
    }

    const fn topic(&self) -> &'static str {
        match self {
            Self::Price { .. } => topics::CATALOGUE,
            Self::Assess { .. } => topics::ELIGIBILITY,
            Self::Reserve(_) | Self::Confirm(_) | Self::Release(_) => topics::INVENTORY,
            Self::Authorise(_) | Self::Capture(_) | Self::Void(_) => topics::PAYMENT,
            Self::Activate { .. } | Self::Deactivate => topics::PROVISIONING,
            Self::Invoice { .. } => topics::BILLING,
        }
    }
}
