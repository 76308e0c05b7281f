//! Pricing: every item at its list price, and one adjustment line when the account is charged
//! something else.

use crate::catalogue::Sku;
use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Command, Message, PriceLine, Reply, SCHEMA_VERSION};
use crate::domain::request::BOOK_BROKEN;
use crate::domain::role::not_mine;
use crate::money::Cents;

/// Handles a command to find a price.
///
/// # Errors
/// [`LogicError::Poison`] while the list of prices is broken.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let Body::Command(Command::Price {
        items,
        monthly_charges,
        price_book,
    }) = &message.body
    else {
        return Err(not_mine(message));
    };
    if price_book == BOOK_BROKEN && !context.repaired {
        return Err(LogicError::Poison(format!(
            "the list of prices {price_book} cannot be read"
        )));
    }
    let lines = price(items, *monthly_charges);
    context.send(message.answer(Reply::Priced { lines }));
    Ok(())
}

/// The lines of a price.
#[must_use]
pub fn price(items: &[Sku], monthly_charges: Cents) -> Vec<PriceLine> {
    let mut lines: Vec<PriceLine> = items
        .iter()
        .map(|sku| PriceLine {
            sku: Some(*sku),
            amount: sku.list_price(),
        })
        .collect();
    let list: Cents = lines.iter().map(|line| line.amount).sum();
    let adjustment = monthly_charges - list;
    if adjustment != Cents(0) {
        lines.push(PriceLine {
            sku: None,
            amount: adjustment,
        });
    }
    lines
}

/// The whole catalogue, as messages for its topic.
#[must_use]
pub fn published() -> Vec<Message> {
    let item = |sku: Sku| Message {
        event_id: format!("item/{sku}"),
        order_id: String::new(),
        sequence: 0,
        causation_id: None,
        traceparent: String::new(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: 0,
        body: Body::Item {
            sku,
            list_price: sku.list_price(),
        },
    };
    Sku::ALL.into_iter().map(item).collect()
}
