//! Resilience kit: retries with a shared budget, circuit breaker, bulkhead, deadlines, outbox.
//!
//! Everything here but [`outbox`] works without a broker, for any call that an application makes.
//! Each part is a plain state machine that takes the time and a random number as arguments, with a
//! small tokio shell beside it.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use highwater_client::resilience::{Bulkhead, CircuitBreaker, Retry, RetryBudget};
//!
//! # async fn charge() -> Result<u32, std::io::Error> { Ok(1) }
//! # async fn example() {
//! let budget = Arc::new(RetryBudget::default());      // one per process: layers share it
//! let retry = Retry::default().budget(budget);
//! let breaker = CircuitBreaker::default();
//! let bulkhead = Bulkhead::new(16, 64);
//!
//! let charged = retry
//!     .run(|_error| true, |_attempt| async {
//!         let _place = bulkhead.enter(Duration::from_millis(50)).await.map_err(std::io::Error::other)?;
//!         breaker.call(charge()).await.map_err(std::io::Error::other)
//!     })
//!     .await;
//! # let _ = charged;
//! # }
//! ```
//!
//! Order of the layers, from the outside in: deadline, retry, bulkhead, breaker, call. A retry
//! outside the breaker sees its refusals and backs off; one budget over all layers keeps a retry of
//! a retry from multiplying the load.

mod backoff;
mod breaker;
mod budget;
mod bulkhead;
pub mod deadline;
pub mod outbox;
mod retry;

pub use backoff::Backoff;
pub use breaker::{
    Admission, Breaker, BreakerSettings, BreakerState, BrokenCall, CircuitBreaker, Refused,
};
pub use budget::{Budget, BudgetCounts, BudgetSettings, RetryBudget};
pub use bulkhead::{Bulkhead, BulkheadFull, Place};
pub use deadline::{Deadline, DeadlinePassed};
pub use retry::{GaveUp, Retry};
