//! The status view: how far each order is.

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::role::not_mine;

/// The prefix of status keys.
pub const PREFIX: &str = "status/";

/// Handles an event.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Event(event) = &message.body else {
        return Err(not_mine(message));
    };
    let status = OrderStatus {
        state: event.state,
        stage: event.stage,
        sequence: message.sequence,
    };
    context.put(&format!("{PREFIX}{}", message.order_id), &status)?;
    let id = format!("{}/status-{}", message.order_id, message.sequence);
    context.send(message.causes(id, Body::Status(status)));
    Ok(())
}
