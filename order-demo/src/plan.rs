//! The plan of a run: which account is ordered for under which number. Known before the first
//! send, so that the checker needs nothing from the broker to know what to expect.

use crate::account::Account;
use crate::order::{OrderNumber, PlacedEvent, RunId, place};

/// What a run is going to order.
#[derive(Debug, Clone)]
pub struct Plan {
    run: RunId,
    accounts: Vec<Account>,
    count: u64,
}

impl Plan {
    /// `count` orders; accounts are repeated, with fresh order ids, when there are fewer.
    /// None when there is no account at all.
    #[must_use]
    pub fn new(run: RunId, accounts: Vec<Account>, count: u64) -> Option<Self> {
        (!accounts.is_empty()).then_some(Self {
            run,
            accounts,
            count,
        })
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// The number of orders.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The account that an order is for; none past the end.
    #[must_use]
    pub fn account(&self, number: OrderNumber) -> Option<&Account> {
        if number.0 >= self.count {
            return None;
        }
        let accounts = u64::try_from(self.accounts.len()).ok()?;
        self.accounts
            .get(usize::try_from(number.0.checked_rem(accounts)?).ok()?)
    }

    /// The event that places an order; none past the end.
    #[must_use]
    pub fn event(&self, number: OrderNumber, intended_start_ms: i64) -> Option<PlacedEvent> {
        Some(place(
            self.run,
            number,
            self.account(number)?,
            intended_start_ms,
        ))
    }
}
