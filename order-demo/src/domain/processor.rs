//! The order processor: runs every order's saga, and alone tells what has happened to it.

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Message};
use crate::domain::request::{Channel, OrderRequest};
use crate::domain::role::not_mine;
use crate::domain::saga::{BUCKETS, Output, Saga};
use crate::money::Cents;

/// The key of an order's saga.
#[must_use]
pub fn saga_key(order_id: &str) -> String {
    format!("saga/{order_id}")
}

/// The key under which a wish to cancel waits for its order. Both come by way of a validator, and of
/// two of them one may die with the order in its outbox.
fn early_key(order_id: &str) -> String {
    format!("early-cancel/{order_id}")
}

/// Handles a message of the saga inbox.
///
/// # Errors
/// [`LogicError::Poison`] for an answer about an order that nobody knows.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let key = saga_key(&message.order_id);
    let known: Option<Saga> = context.get(&key)?;
    let before = known.as_ref().map_or(0, |saga| saga.sequence);
    let (saga, outputs) = match (known, &message.body) {
        // A placed order that comes again is the same order.
        (Some(_), Body::Valid(_) | Body::Invalid { .. }) => return Ok(()),
        (None, Body::Valid(request)) => {
            let begun = Saga::begin(request.clone(), bucket(&message.order_id));
            with_early_cancel(context, message, begun)?
        }
        (None, Body::Invalid { account_id, reason }) => {
            let rejected = Saga::reject(unsound(account_id), reason.clone());
            with_early_cancel(context, message, rejected)?
        }
        (Some(mut saga), Body::Reply(reply)) => {
            let outputs = saga.answered(reply);
            (saga, outputs)
        }
        (Some(mut saga), Body::CancelAsked) => {
            let outputs = saga.cancel_asked();
            (saga, outputs)
        }
        (None, Body::CancelAsked) => return context.put(&early_key(&message.order_id), &true),
        (None, Body::Reply(_)) => {
            let id = &message.order_id;
            return Err(LogicError::Poison(format!("order {id} is not known")));
        }
        _ => return Err(not_mine(message)),
    };
    context.put(&key, &saga)?;
    send(context, message, before, outputs);
    Ok(())
}

/// A new saga, with the wish to cancel that came before its order, if one did.
fn with_early_cancel(
    context: &Context<'_>,
    message: &Message,
    (mut saga, mut outputs): (Saga, Vec<Output>),
) -> Result<(Saga, Vec<Output>), LogicError> {
    if context.get(&early_key(&message.order_id))? == Some(true) {
        outputs.extend(saga.cancel_asked());
    }
    Ok((saga, outputs))
}

fn send(context: &mut Context<'_>, cause: &Message, before: u32, outputs: Vec<Output>) {
    let mut sequence = before;
    for output in outputs {
        let (id, body) = match output {
            Output::Event(event) => {
                sequence += 1;
                (format!("event-{sequence}"), Body::Event(event))
            }
            Output::Command(command) => (command.name(), Body::Command(command)),
        };
        let mut message = cause.causes(format!("{}/{id}", cause.order_id), body);
        message.sequence = sequence;
        context.send(message);
    }
}

/// The bucket of stock that an order uses: spread, and always the same.
fn bucket(order_id: &str) -> u32 {
    let hash = crate::order::fnv(order_id.as_bytes());
    u32::try_from(hash % BUCKETS).unwrap_or(0)
}

/// What is kept of an order that is not sound.
fn unsound(account_id: &str) -> OrderRequest {
    OrderRequest {
        channel: Channel::Web,
        account_id: account_id.to_owned(),
        contract: String::new(),
        payment_method: String::new(),
        payment_token: String::new(),
        credit_class: String::new(),
        site: String::new(),
        price_book: String::new(),
        monthly_charges: Cents(0),
        items: Vec::new(),
    }
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
