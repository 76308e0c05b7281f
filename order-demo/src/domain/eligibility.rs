//! Eligibility: who may have a contract.

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Command, Message, Reply};
use crate::domain::request::CREDIT_REFUSED;
use crate::domain::role::not_mine;

/// Handles a command to assess an account.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Command(Command::Assess { credit_class }) = &message.body else {
        return Err(not_mine(message));
    };
    let eligible = credit_class != CREDIT_REFUSED;
    context.send(message.answer(Reply::Assessed { eligible }));
    Ok(())
}
