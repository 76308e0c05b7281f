//! Provisioning: the services of an order are switched on, or off again.

use crate::domain::context::{Context, EffectKind, LogicError};
use crate::domain::message::{Body, Command, Message, Reply};
use crate::domain::request::SITE_NO_LINE;
use crate::domain::role::not_mine;
use crate::money::Cents;

/// The prefix of the keys that say which orders' services are on.
pub const PREFIX: &str = "line/";

/// Handles a provisioning command.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let key = format!("{PREFIX}{}", message.order_id);
    let reply = match &message.body {
        Body::Command(Command::Activate { site, .. }) => {
            let ok = site != SITE_NO_LINE;
            if ok {
                context.effect(EffectKind::Activate, &message.order_id, Cents(0));
                context.add(&key, 1)?;
            }
            Reply::Activated { ok }
        }
        Body::Command(Command::Deactivate) => {
            context.effect(EffectKind::Deactivate, &message.order_id, Cents(0));
            context.add(&key, -1)?;
            Reply::Deactivated
        }
        _ => return Err(not_mine(message)),
    };
    context.send(message.answer(reply));
    Ok(())
}
