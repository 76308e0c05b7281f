//! What is special about an order: most are plain, some are refused or cancelled on the way.
//!
//! A pure function of seed and number, so that the checker knows from the input alone which end an
//! order may have.

use serde::{Deserialize, Serialize};

use crate::domain::request::{
    BOOK_BROKEN, CREDIT_REFUSED, OrderRequest, SITE_NO_LINE, TOKEN_CAPTURE_DECLINED,
    TOKEN_DECLINED, TOO_MANY,
};
use crate::domain::state::OrderState;
use crate::order::{OrderNumber, mix};

/// What is special about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Deviation {
    /// Nothing.
    Plain,
    /// An item twice: no valid order.
    Invalid,
    /// The account gets no contract.
    Ineligible,
    /// One item in a quantity that nobody has.
    OutOfStock,
    /// The bank refuses at once.
    Declined,
    /// The bank refuses at the capture, when everything else was done.
    CaptureDeclined,
    /// No line at the site.
    NoLine,
    /// The customer cancels at once.
    CancelEarly,
    /// The customer cancels a little later; often too late.
    CancelLate,
    /// Its price cannot be found until somebody repairs the list of prices.
    Poison,
}

/// Of 1,000 orders, so many of each kind; the rest are plain.
const PER_MILLE: [(Deviation, u64); 8] = [
    (Deviation::Invalid, 5),
    (Deviation::Ineligible, 10),
    (Deviation::OutOfStock, 10),
    (Deviation::Declined, 10),
    (Deviation::CaptureDeclined, 5),
    (Deviation::NoLine, 10),
    (Deviation::CancelEarly, 10),
    (Deviation::CancelLate, 10),
];

impl Deviation {
    /// Of the order with this number, in a run with this seed.
    #[must_use]
    pub fn of(seed: u64, number: OrderNumber) -> Self {
        let mut lot = mix(seed ^ mix(number.0)) % 1_000;
        for (deviation, share) in PER_MILLE {
            if lot < share {
                return deviation;
            }
            lot -= share;
        }
        Self::Plain
    }

    /// Makes an order special in this way.
    pub fn apply(self, request: &mut OrderRequest) {
        match self {
            Self::Plain | Self::CancelEarly | Self::CancelLate => {}
            Self::Invalid => request.items.extend(request.items.first().copied()),
            Self::Ineligible => CREDIT_REFUSED.clone_into(&mut request.credit_class),
            Self::OutOfStock => {
                if let Some(item) = request.items.last_mut() {
                    item.quantity = TOO_MANY;
                }
            }
            Self::Declined => TOKEN_DECLINED.clone_into(&mut request.payment_token),
            Self::CaptureDeclined => {
                TOKEN_CAPTURE_DECLINED.clone_into(&mut request.payment_token);
            }
            Self::NoLine => SITE_NO_LINE.clone_into(&mut request.site),
            Self::Poison => BOOK_BROKEN.clone_into(&mut request.price_book),
        }
    }

    /// The ends that such an order may have.
    #[must_use]
    pub const fn ends(self) -> &'static [OrderState] {
        match self {
            Self::Plain | Self::Poison => &[OrderState::Completed],
            Self::Invalid | Self::Ineligible => &[OrderState::Rejected],
            Self::OutOfStock | Self::Declined | Self::CaptureDeclined | Self::NoLine => {
                &[OrderState::Failed]
            }
            Self::CancelEarly | Self::CancelLate => &[OrderState::Completed, OrderState::Cancelled],
        }
    }
}
