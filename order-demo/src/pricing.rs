//! Pricing: a placed order becomes a priced one. A pure function of the event and its place, so
//! that pricing it twice gives the same event with the same id.

use crate::money::Cents;
use crate::order::{
    Envelope, Line, PlacedEvent, Priced, PricedEvent, SCHEMA_VERSION, Source, State,
};

/// The id of the event that pricing makes of the record at `source`.
#[must_use]
pub fn priced_event_id(source: Source) -> String {
    format!("priced-{}-{}", source.partition, source.offset)
}

/// Prices every item at its list price, and adds one adjustment line when the account is charged
/// something else.
#[must_use]
pub fn price(placed: &PlacedEvent, source: Source) -> PricedEvent {
    let line = |sku: crate::catalogue::Sku| Line {
        sku: Some(sku),
        amount_cents: sku.list_price(),
    };
    let mut lines: Vec<Line> = placed
        .body
        .items
        .iter()
        .map(|item| line(item.sku))
        .collect();
    let list: Cents = lines.iter().map(|line| line.amount_cents).sum();
    let adjustment = placed.body.monthly_charges_cents - list;
    if adjustment != Cents(0) {
        lines.push(Line {
            sku: None,
            amount_cents: adjustment,
        });
    }
    let total_cents = lines.iter().map(|line| line.amount_cents).sum();
    Envelope {
        event_id: priced_event_id(source),
        order_id: placed.order_id.clone(),
        sequence: placed.sequence.saturating_add(1),
        causation_id: Some(placed.event_id.clone()),
        traceparent: placed.traceparent.clone(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: placed.intended_start_ms,
        body: Priced {
            state: State::InProgress,
            account_id: placed.body.account_id.clone(),
            lines,
            total_cents,
            source,
        },
    }
}
