//! Keeps one client at its rate. It does not make up for time that an operation took longer.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A rate.
pub(super) struct Pace {
    mean: Duration,
    next: Instant,
}

impl Pace {
    /// So many a second.
    pub(super) fn new(rate: f64) -> Self {
        Self {
            mean: Duration::from_secs_f64(1.0 / rate.max(0.01)),
            next: Instant::now(),
        }
    }

    /// Waits until the next operation is due; whether there is to be one.
    pub(super) async fn wait(&mut self, random: &mut StdRng, stop: &CancellationToken) -> bool {
        let pause = self.mean.mul_f64(random.random_range(0.5..1.5));
        self.next = (self.next + pause).max(Instant::now());
        tokio::select! {
            () = sleep_until(self.next) => !stop.is_cancelled(),
            () = stop.cancelled() => false,
        }
    }
}
