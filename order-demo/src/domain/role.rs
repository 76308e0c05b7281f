//! The services, by name: what each reads, and which logic is its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::context::{Context, LogicError};
use crate::domain::message::Message;
use crate::domain::topics;
use crate::domain::{
    audit, billing, catalogue, eligibility, inventory, notify, payment, processor, provisioning,
    status, validator,
};

/// A service that handles messages. The gateway is none of them: it takes HTTP requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Checks orders from the web.
    ValidatorWeb,
    /// Checks orders from agents.
    ValidatorAgent,
    /// Runs the sagas.
    Processor,
    /// Finds prices.
    Catalogue,
    /// Decides who may order.
    Eligibility,
    /// Keeps the stock.
    Inventory,
    /// Moves money.
    Payment,
    /// Switches services.
    Provisioning,
    /// Writes invoices.
    Billing,
    /// Says how far orders are.
    Status,
    /// Keeps the audit chains.
    Auditor,
    /// Decides what customers are told.
    NotifyPolicy,
    /// Tells them.
    Notifier,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ValidatorWeb,
        Self::ValidatorAgent,
        Self::Processor,
        Self::Catalogue,
        Self::Eligibility,
        Self::Inventory,
        Self::Payment,
        Self::Provisioning,
        Self::Billing,
        Self::Status,
        Self::Auditor,
        Self::NotifyPolicy,
        Self::Notifier,
    ];

    /// Its name; also that of its consumer group, of its store and of its outbox.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ValidatorWeb => "validator-web",
            Self::ValidatorAgent => "validator-agent",
            Self::Processor => "processor",
            Self::Catalogue => "catalogue",
            Self::Eligibility => "eligibility",
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Provisioning => "provisioning",
            Self::Billing => "billing",
            Self::Status => "status",
            Self::Auditor => "auditor",
            Self::NotifyPolicy => "notify-policy",
            Self::Notifier => "notifier",
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The topic that it reads.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::ValidatorWeb => topics::INTAKE_WEB,
            Self::ValidatorAgent => topics::INTAKE_AGENT,
            Self::Processor => topics::SAGA_INBOX,
            Self::Catalogue => topics::CATALOGUE,
            Self::Eligibility => topics::ELIGIBILITY,
            Self::Inventory => topics::INVENTORY,
            Self::Payment => topics::PAYMENT,
            Self::Provisioning => topics::PROVISIONING,
            Self::Billing => topics::BILLING,
            Self::Status | Self::Auditor | Self::NotifyPolicy => topics::EVENTS,
            Self::Notifier => topics::NOTIFICATION,
        }
    }

    /// Whether it calls something outside: a payment provider, a network.
    #[must_use]
    pub const fn calls_outside(self) -> bool {
        matches!(self, Self::Payment | Self::Provisioning)
    }

    /// Whether any number of workers may share its topic: it keeps nothing in mind between two messages,
    /// and whoever reads what it sends takes it once, also when two workers send it.
    #[must_use]
    pub const fn scales(self) -> bool {
        matches!(
            self,
            Self::ValidatorWeb | Self::ValidatorAgent | Self::Eligibility
        )
    }

    /// The name of one of its workers, from 1 on; also that of the worker's files and of its outbox. The
    /// first has the service's.
    #[must_use]
    pub fn worker(self, number: u32) -> String {
        match number {
            0 | 1 => self.name().to_owned(),
            _ => format!("{self}-{number}"),
        }
    }

    /// Handles one message. The catalogue has the prices that are built in.
    ///
    /// # Errors
    /// When the message is bad, or the store fails. Then nothing has happened.
    pub fn handle(self, context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
        match self {
            Self::ValidatorWeb | Self::ValidatorAgent => validator::handle(context, message),
            Self::Processor => processor::handle(context, message),
            Self::Catalogue => catalogue::handle(context, message, &catalogue::BuiltIn),
            Self::Eligibility => eligibility::handle(context, message),
            Self::Inventory => inventory::handle(context, message),
            Self::Payment => payment::handle(context, message),
            Self::Provisioning => provisioning::handle(context, message),
            Self::Billing => billing::handle(context, message),
            Self::Status => status::handle(context, message),
            Self::Auditor => audit::handle(context, message),
            Self::NotifyPolicy => notify::decide(context, message),
            Self::Notifier => notify::tell(context, message),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of a service that got a message of somebody else's.
pub(super) fn not_mine(message: &Message) -> LogicError {
    LogicError::Poison(format!(
        "{} is no message for this service",
        message.event_id
    ))
}
