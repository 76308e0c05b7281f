//! Billing: one invoice per order, for exactly what was captured.

use serde::{Deserialize, Serialize};

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Command, Message, PriceLine, Reply};
use crate::domain::role::not_mine;
use crate::money::Cents;

/// The prefix of invoice keys.
pub const PREFIX: &str = "invoice/";
/// The key of the last number given.
const LAST: &str = "last-invoice";

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// Whose.
    pub account_id: String,
    /// What for.
    pub lines: Vec<PriceLine>,
    /// How much.
    pub total: Cents,
}

/// Handles a command to write an invoice.
///
/// # Errors
/// [`LogicError::Poison`] when its lines are not what was captured, or for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Command(Command::Invoice {
        account_id,
        lines,
        captured,
    }) = &message.body
    else {
        return Err(not_mine(message));
    };
    let total: Cents = lines.iter().map(|line| line.amount).sum();
    if total != *captured {
        return Err(LogicError::Poison(format!(
            "the lines come to {total}, captured was {captured}"
        )));
    }
    let number = context.add(LAST, 1)?.unsigned_abs();
    let invoice = Invoice {
        number,
        account_id: account_id.clone(),
        lines: lines.clone(),
        total,
    };
    context.put(&format!("{PREFIX}{}", message.order_id), &invoice)?;
    context.send(message.answer(Reply::Invoiced { number }));
    Ok(())
}
