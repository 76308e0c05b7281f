//! Notifications: which events a customer hears of, and that each is told once.

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Message};
use crate::domain::role::not_mine;
use crate::domain::state::Stage;

/// Customers told so far.
pub const TOLD: &str = "told";

/// Decides whether an event's customer is told.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn decide(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Event(event) = &message.body else {
        return Err(not_mine(message));
    };
    let text = match event.stage {
        Stage::Received => "we have your order",
        Stage::Fulfilled => "your order is complete",
        Stage::Closed => "your order has ended",
        Stage::CancelRefused => "your order can no longer be cancelled",
        _ => return Ok(()),
    };
    let notify = Body::Notify {
        account_id: event.account_id.clone(),
        text: text.to_owned(),
    };
    let id = format!("{}/notify-{}", message.order_id, message.sequence);
    context.send(message.causes(id, notify));
    Ok(())
}

/// Tells a customer.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn tell(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    if !matches!(message.body, Body::Notify { .. }) {
        return Err(not_mine(message));
    }
    context.add(TOLD, 1)?;
    Ok(())
}
