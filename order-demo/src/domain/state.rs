//! The states of TM Forum's order interfaces (TMF622, TMF641), and which may follow which.

use serde::{Deserialize, Serialize};

/// The state of an order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "camelCase")]
pub enum OrderState {
    /// Taken in and valid.
    #[default]
    Acknowledged,
    /// Refused before anything was done for it.
    Rejected,
    /// Waits for something outside.
    Pending,
    /// Waits for a person.
    Held,
    /// Being worked on.
    InProgress,
    /// Undone at the customer's wish.
    Cancelled,
    /// Everything was delivered.
    Completed,
    /// Could not be delivered; everything was undone.
    Failed,
    /// Some items were delivered, others not.
    Partial,
    /// A wish to cancel is looked at.
    AssessingCancellation,
    /// It will be cancelled; what was done is being undone.
    PendingCancellation,
}

impl OrderState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Rejected | Self::Cancelled | Self::Completed | Self::Failed | Self::Partial
        )
    }

    /// Whether `next` may follow. A state may always be told again.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use OrderState as S;
        self == next
            || match self {
                S::Acknowledged => matches!(
                    next,
                    S::Rejected | S::Pending | S::Held | S::InProgress | S::AssessingCancellation
                ),
                S::Pending | S::Held => {
                    matches!(next, S::InProgress | S::AssessingCancellation | S::Rejected)
                }
                S::InProgress => matches!(
                    next,
                    S::Pending
                        | S::Held
                        | S::Completed
                        | S::Failed
                        | S::Partial
                        | S::Rejected
                        | S::AssessingCancellation
                ),
                // Back to work when it was too late.
                S::AssessingCancellation => {
                    matches!(next, S::PendingCancellation | S::InProgress | S::Failed)
                }
                S::PendingCancellation => matches!(next, S::Cancelled),
                S::Rejected | S::Cancelled | S::Completed | S::Failed | S::Partial => false,
            }
    }
}

/// What an event about an order says has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It was taken in.
    Received,
    /// It was priced, and the account may have it.
    Assessed,
    /// All items are reserved.
    Reserved,
    /// The money is set aside.
    Authorised,
    /// The services work.
    Activated,
    /// The money is taken: the pivot, after which nothing is undone.
    Captured,
    /// The invoice is written.
    Invoiced,
    /// The stock is used up; the order is complete.
    Fulfilled,
    /// A wish to cancel came.
    CancelAsked,
    /// It will be granted.
    CancelGranted,
    /// It came too late.
    CancelRefused,
    /// A step failed, and what was done is being undone.
    Undoing,
    /// The services are switched off again.
    Deactivated,
    /// The money is free again.
    Voided,
    /// The items are free again.
    Released,
    /// It ended without having been delivered: rejected, failed or cancelled.
    Closed,
}
