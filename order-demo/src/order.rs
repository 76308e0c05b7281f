//! The ids of orders.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of an order in a run's plan, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderNumber(pub u64);

/// Tells the orders of one run from those of every other, also when they use the same accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl RunId {
    /// The id of an order; the key of every event about it.
    #[must_use]
    pub fn order_id(self, number: OrderNumber) -> String {
        format!("{:016x}-{:09}", self.0, number.0)
    }

    /// The number within this run of an order id; none when it is not of this run.
    #[must_use]
    pub fn number_of(self, order_id: &str) -> Option<OrderNumber> {
        let (run, number) = order_id.split_once('-')?;
        let number = OrderNumber(number.parse().ok()?);
        // Comparing the whole text refuses other spellings of the same numbers.
        (u64::from_str_radix(run, 16).ok()? == self.0 && self.order_id(number) == order_id)
            .then_some(number)
    }

    /// A W3C trace context for an order: constant per order, so that its events join one trace.
    #[must_use]
    pub fn traceparent(self, number: OrderNumber) -> String {
        let (high, low) = (mix(self.0), mix(self.0 ^ mix(number.0)));
        // Neither id may be all zeros.
        format!("00-{high:016x}{:016x}-{:016x}-01", low | 1, mix(low) | 1)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Spreads the bits of a number (the finalizer of the SplitMix64 generator).
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits: the same for everyone, for ever.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
