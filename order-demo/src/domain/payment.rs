//! Payment: money is set aside, taken, or given back; a ledger of two sides adds up to zero.

use serde::{Deserialize, Serialize};

use crate::domain::context::{Context, EffectKind, LogicError};
use crate::domain::message::{Body, Command, Message, Reply};
use crate::domain::request::{TOKEN_CAPTURE_DECLINED, TOKEN_DECLINED};
use crate::domain::role::not_mine;
use crate::money::Cents;

/// An order's payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paid {
    /// Set aside, ever.
    pub authorised: Cents,
    /// Taken.
    pub captured: Cents,
    /// Given back.
    pub voided: Cents,
}

/// The prefix of payment keys.
pub const PREFIX: &str = "paid/";
/// Ledger: what customers owe, negative once they have paid.
pub const CUSTOMERS: &str = "ledger/customers";
/// Ledger: what the company has.
pub const CASH: &str = "ledger/cash";

/// Handles a payment command.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Command(command) = &message.body else {
        return Err(not_mine(message));
    };
    let (Command::Authorise(payment) | Command::Capture(payment) | Command::Void(payment)) =
        command
    else {
        return Err(not_mine(message));
    };
    let key = format!("{PREFIX}{}", message.order_id);
    let mut paid: Paid = context.get(&key)?.unwrap_or_default();
    let amount = payment.amount;
    let order = &message.order_id;
    let reply = match command {
        Command::Capture(_) => {
            let ok = payment.token != TOKEN_CAPTURE_DECLINED;
            if ok {
                context.effect(EffectKind::Capture, order, amount);
                paid.captured = paid.captured + amount;
                context.add(CUSTOMERS, -amount.0)?;
                context.add(CASH, amount.0)?;
            }
            Reply::Captured { ok }
        }
        Command::Void(_) => {
            context.effect(EffectKind::Void, order, amount);
            paid.voided = paid.voided + amount;
            Reply::Voided
        }
        _ => {
            let ok = payment.token != TOKEN_DECLINED;
            if ok {
                context.effect(EffectKind::Authorise, order, amount);
                paid.authorised = paid.authorised + amount;
            }
            Reply::Authorised { ok }
        }
    };
    context.put(&key, &paid)?;
    context.send(message.answer(reply));
    Ok(())
}
