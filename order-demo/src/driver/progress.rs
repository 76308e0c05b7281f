//! What a run tells while it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::state::OrderState;
use crate::report::Sample;

/// A broker, as far as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerView {
    /// Its number.
    pub broker: u32,
    /// Whether its process runs.
    pub runs: bool,
    /// Partitions of the demo's topics that it leads.
    pub leads: u32,
}

/// How a run looks now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The counters, and each group's lag.
    pub sample: Sample,
    /// Orders by their latest state.
    pub states: BTreeMap<OrderState, u64>,
    /// The brokers.
    pub brokers: Vec<BrokerView>,
}

/// One piece of news about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Sending begins, at so many orders per second.
    Sending {
        /// Orders in the plan.
        orders: u64,
        /// Orders per second.
        rate: f64,
    },
    /// A second has passed.
    Sample(Box<View>),
    /// Something happened, in words.
    Said(String),
}

/// Takes news. Called from many tasks; must not block.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;
