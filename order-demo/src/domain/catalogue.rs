//! Pricing: every item at its list price, and one adjustment line when the account is charged
//! something else. Where list prices come from is for whoever runs it to say.

use crate::catalogue::Sku;
use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Command, Message, PriceLine, Reply, SCHEMA_VERSION};
use crate::domain::request::BOOK_BROKEN;
use crate::domain::role::not_mine;
use crate::money::Cents;

/// List prices.
pub trait Prices {
    /// What an item costs per month; none when it is not in the list.
    fn of(&self, sku: Sku) -> Option<Cents>;
}

/// The list that is built in: what the catalogue publishes, and what is charged where nothing can be
/// published.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

impl Prices for BuiltIn {
    fn of(&self, sku: Sku) -> Option<Cents> {
        Some(sku.list_price())
    }
}

/// Handles a command to find a price.
///
/// # Errors
/// [`LogicError::Poison`] while the list of prices is broken, and for an item that it does not have.
pub fn handle(
    context: &mut Context<'_>,
    message: &Message,
    prices: &dyn Prices,
) -> Result<(), LogicError> {
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
    let lines = price(items, *monthly_charges, prices)
        .map_err(|sku| LogicError::Poison(format!("the list of prices has no {sku}")))?;
    context.send(message.answer(Reply::Priced { lines }));
    Ok(())
}

/// The lines of a price.
///
/// # Errors
/// The first item that has no list price.
pub fn price(
    items: &[Sku],
    monthly_charges: Cents,
    prices: &dyn Prices,
) -> Result<Vec<PriceLine>, Sku> {
    let line = |sku: &Sku| {
        let amount = prices.of(*sku).ok_or(*sku)?;
        Ok(PriceLine {
            sku: Some(*sku),
            amount,
        })
    };
    let mut lines: Vec<PriceLine> = items.iter().map(line).collect::<Result<_, Sku>>()?;
    let list: Cents = lines.iter().map(|line| line.amount).sum();
    let adjustment = monthly_charges - list;
    if adjustment != Cents(0) {
        lines.push(PriceLine {
            sku: None,
            amount: adjustment,
        });
    }
    Ok(lines)
}

/// The whole catalogue, as messages for its topic, each item so much dearer.
#[must_use]
pub fn published(dearer: Cents) -> Vec<Message> {
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
            list_price: sku.list_price() + dearer,
        },
    };
    Sku::ALL.into_iter().map(item).collect()
}
