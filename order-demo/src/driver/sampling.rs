//! How far a run is, second by second.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::lag;
use super::load::LoadCounters;
use super::progress::{Event, Listener, View};
use super::watch::Watch;
use crate::bus::ClientBus;
use crate::control::ClusterControl;
use crate::report::Sample;

const EVERY: Duration = Duration::from_secs(1);

/// Takes a sample every second.
pub(super) struct Sampling {
    pub counters: Arc<LoadCounters>,
    pub watch: Watch,
    pub listener: Listener,
    pub samples: Arc<Mutex<Vec<Sample>>>,
    /// The brokers; none in modes without them.
    pub bus: Option<ClientBus>,
    pub control: Arc<dyn ClusterControl>,
    /// Number and address of each broker.
    pub brokers: Vec<(u32, String)>,
}

impl Sampling {
    pub(super) async fn run(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        ticks.tick().await;
        let mut second = 0;
        loop {
            ticks.tick().await;
            let mut view = self.look(second);
            if let Some(bus) = &self.bus {
                // While a broker dies the brokers may not answer: then this second has no lag.
                let lags = timeout(EVERY / 2, lag::lags(bus.client())).await;
                view.sample.lag = lags.ok().and_then(Result::ok).unwrap_or_default();
                view.brokers = lag::brokers(&self.control, bus, &self.brokers).await;
            }
            second += 1;
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push(view.sample.clone());
            drop(samples);
            (self.listener)(Event::Sample(Box::new(view)));
        }
    }

    fn look(&self, second: u64) -> View {
        let acknowledged = self.counters.accepted.load(Ordering::Relaxed);
        let seen = self.watch.seen();
        View {
            sample: Sample {
                second,
                sent: self.counters.sent.load(Ordering::Relaxed),
                acknowledged,
                priced: seen.priced,
                ended: if self.bus.is_some() {
                    seen.ended
                } else {
                    acknowledged
                },
                events: seen.events,
                lag: BTreeMap::new(),
            },
            states: seen.states.clone(),
            brokers: Vec::new(),
        }
    }
}
