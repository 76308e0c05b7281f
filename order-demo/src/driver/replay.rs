//! The past: a fresh view, built from the first event on up to a moment of the run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bus::ClientBus;
use crate::domain::message::{Body, Message};
use crate::domain::state::OrderState;
use crate::domain::topics;
use crate::readback::read_to_end;
use crate::report::Replay;

/// The state of every order as it was at that moment, by the stamps of the events' records.
///
/// # Errors
/// When the events cannot be read.
pub(super) async fn replay(
    bus: &ClientBus,
    at: Duration,
    start_unix_ms: i64,
    patience: Duration,
) -> anyhow::Result<Replay> {
    let until = start_unix_ms + i64::try_from(at.as_millis())?;
    let ends = bus.ends(topics::EVENTS).await?;
    let mut orders: BTreeMap<String, OrderState> = BTreeMap::new();
    let mut failure = None;
    let reading = read_to_end(bus, topics::EVENTS, &ends, None, patience, |record| {
        if record.timestamp_ms > until {
            return;
        }
        match serde_json::from_slice::<Message>(&record.value) {
            Ok(message) => {
                if let Body::Event(event) = message.body {
                    orders.insert(message.order_id, event.state);
                }
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    });
    reading.await?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    let mut states: BTreeMap<OrderState, u64> = BTreeMap::new();
    for state in orders.values() {
        *states.entry(*state).or_default() += 1;
    }
    Ok(Replay {
        at_s: at.as_secs_f64(),
        states,
        orders,
    })
}
