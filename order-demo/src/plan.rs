//! The plan of a run: which account orders under which number, and what is special about it. Known
//! before the first request, so that the checker needs nothing from the pipeline to know what to
//! expect.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::domain::deviation::Deviation;
use crate::domain::request::{Channel, OrderRequest};
use crate::order::{OrderNumber, RunId, mix};

/// What a run is going to order. Written to the run's directory as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    run: RunId,
    seed: u64,
    accounts: Vec<Account>,
    count: u64,
    poison: u64,
}

impl Plan {
    /// `count` orders; accounts are repeated, with fresh order ids, when there are fewer. `poison`
    /// of them cannot be priced until somebody repairs something. None when there is no account.
    #[must_use]
    pub fn new(run: RunId, seed: u64, accounts: Vec<Account>, count: u64) -> Option<Self> {
        (!accounts.is_empty()).then_some(Self {
            run,
            seed,
            accounts,
            count,
            poison: 0,
        })
    }

    /// With so many poisoned orders, spread evenly over the run.
    #[must_use]
    pub fn with_poison(mut self, poison: u64) -> Self {
        self.poison = poison.min(self.count);
        self
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

    /// The number of poisoned orders.
    #[must_use]
    pub const fn poison(&self) -> u64 {
        self.poison
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

    /// What is special about an order.
    #[must_use]
    pub fn deviation(&self, number: OrderNumber) -> Deviation {
        // Number n is poisoned if the share of poison passes a whole number there.
        let share = |upto: u64| {
            (u128::from(upto) * u128::from(self.poison)) / u128::from(self.count.max(1))
        };
        if share(number.0 + 1) > share(number.0) {
            return Deviation::Poison;
        }
        Deviation::of(self.seed, number)
    }

    /// The order; none past the end.
    #[must_use]
    pub fn request(&self, number: OrderNumber) -> Option<OrderRequest> {
        let channel = match mix(self.seed ^ number.0) % 4 {
            0 => Channel::Agent,
            _ => Channel::Web,
        };
        let mut request = OrderRequest::of(self.account(number)?, channel);
        self.deviation(number).apply(&mut request);
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate_accounts;

    #[test]
    fn exactly_as_many_orders_are_poisoned_as_were_asked_for() {
        let plan = Plan::new(RunId(1), 5, generate_accounts(5, 7), 1_000).expect("accounts");
        let plan = plan.with_poison(13);
        let poisoned = (0..1_000).filter(|n| plan.deviation(OrderNumber(*n)) == Deviation::Poison);
        assert_eq!(poisoned.count(), 13);
        assert_eq!(plan.request(OrderNumber(1_000)), None);
    }
}
