//! The auditor: every event becomes a link of its order's chain. Whoever alters, removes or adds
//! an event later breaks every link after it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::domain::context::{Context, LogicError};
use crate::domain::message::{AuditEntry, Body, Message};
use crate::domain::role::not_mine;

/// The prefix of the keys that hold each chain's last hash.
pub const PREFIX: &str = "audit/";

/// Handles an event.
///
/// # Errors
/// [`LogicError::Poison`] for any other message.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    if !matches!(message.body, Body::Event(_)) {
        return Err(not_mine(message));
    }
    let key = format!("{PREFIX}{}", message.order_id);
    let previous: String = context.get(&key)?.unwrap_or_default();
    let hash = link(&previous, message)?;
    context.put(&key, &hash)?;
    let entry = AuditEntry {
        of: message.event_id.clone(),
        sequence: message.sequence,
        previous,
        hash,
    };
    let id = format!("{}/audit-{}", message.order_id, message.sequence);
    context.send(message.causes(id, Body::Audit(entry)));
    Ok(())
}

/// The hash of an event's link.
///
/// # Errors
/// When the event cannot be written as JSON.
pub fn link(previous: &str, event: &Message) -> Result<String, LogicError> {
    let json = serde_json::to_vec(event).map_err(|error| LogicError::Store(error.to_string()))?;
    let mut hash = Sha256::new();
    hash.update(previous.as_bytes());
    hash.update(&json);
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
