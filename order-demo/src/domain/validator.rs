//! The validators: an order is sound, or it is rejected before anything is done for it.

use std::collections::BTreeSet;

use crate::catalogue::Sku;
use crate::domain::context::{Context, LogicError};
use crate::domain::message::{Body, Message};
use crate::domain::request::OrderRequest;
use crate::domain::role::not_mine;

/// Handles an intake message.
///
/// # Errors
/// [`LogicError::Poison`] for a message that is none of intake's.
pub fn handle(context: &mut Context<'_>, message: &Message) -> Result<(), LogicError> {
    let id = |what: &str| format!("{}/{what}", message.order_id);
    let told = match &message.body {
        Body::Placed(request) => match check(request) {
            Ok(()) => message.causes(id("valid"), Body::Valid(request.clone())),
            Err(reason) => message.causes(
                id("invalid"),
                Body::Invalid {
                    account_id: request.account_id.clone(),
                    reason: reason.to_owned(),
                },
            ),
        },
        Body::CancelRequested(_) => message.causes(id("cancel-asked"), Body::CancelAsked),
        _ => return Err(not_mine(message)),
    };
    context.send(told);
    Ok(())
}

/// Why an order is not sound.
///
/// # Errors
/// The reason.
pub fn check(request: &OrderRequest) -> Result<(), &'static str> {
    if request.items.is_empty() {
        return Err("nothing is ordered");
    }
    if request.monthly_charges.0 < 0 {
        return Err("the monthly charge is negative");
    }
    let skus: BTreeSet<Sku> = request.items.iter().map(|item| item.sku).collect();
    if skus.len() != request.items.len() {
        return Err("an item is ordered twice");
    }
    if request.items.iter().any(|item| item.quantity == 0) {
        return Err("an item is ordered without a quantity");
    }
    let internet = skus.contains(&Sku::InternetDsl) || skus.contains(&Sku::InternetFibre);
    let add_on = |sku: &Sku| {
        matches!(
            sku,
            Sku::OnlineSecurity
                | Sku::OnlineBackup
                | Sku::DeviceProtection
                | Sku::TechSupport
                | Sku::StreamingTv
                | Sku::StreamingMovies
        )
    };
    if skus.iter().any(add_on) && !internet {
        return Err("an add-on is ordered without internet");
    }
    if skus.contains(&Sku::ExtraLines) && !skus.contains(&Sku::PhoneLine) {
        return Err("further lines are ordered without a first one");
    }
    Ok(())
}
