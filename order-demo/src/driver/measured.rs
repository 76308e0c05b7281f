//! What a run has measured, as its report says it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::one::{Flowed, One};
use super::supervisor::Supervisor;
use super::watch::Watch;
use crate::checker::Verdict;
use crate::report::{Latency, ModeRun, Work, per_second};
use crate::services::config::Mode;

impl One<'_> {
    pub(super) fn measured(
        &self,
        (flowed, unaided): (Flowed, (u64, i64)),
        watch: &Watch,
        verdict: Verdict,
        cpu_s: BTreeMap<String, f64>,
    ) -> ModeRun {
        let seen = watch.seen();
        let mut samples = flowed
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let duration_s = flowed.loaded.duration.as_secs_f64();
        let ack_ms = Latency::from_micros(&flowed.loaded.latencies);
        let event = self.mode == Mode::Event;
        // Without a broker the answer comes when the order has ended.
        #[allow(clippy::cast_precision_loss)]
        let to_last_end_s = if event {
            (unaided.1 - flowed.start_unix_ms).max(0) as f64 / 1_000.0
        } else {
            duration_s
        };
        let ended = if event { unaided.0 } else { flowed.accepted };
        let mut faults = flowed.faults;
        for fault in faults.iter_mut().filter(|fault| fault.name == "poison") {
            fault.active = verdict.parked > 0;
            fault.proof = format!("{} orders were parked, then redriven", verdict.parked);
        }
        let stages = seen.to_stage.iter();
        let stages = stages.map(|(stage, h)| (format!("{stage:?}"), Latency::from_millis(h)));
        ModeRun {
            mode: self.mode.name().to_owned(),
            durability: match self.mode {
                Mode::Event => "each step fsynced in its store and on 2 of 3 brokers",
                Mode::Monolith => "one fsynced transaction, not replicated",
                Mode::MonolithReplicated => {
                    "one fsynced transaction, its record on 2 of 3 brokers before the answer"
                }
                _ => "each step fsynced in its store, not replicated",
            }
            .to_owned(),
            orders: self.config.plan.count(),
            rate: self.config.effective_rate(),
            duration_s,
            to_last_end_s,
            orders_per_s: per_second(flowed.accepted, duration_s),
            ended_per_s: per_second(ended, to_last_end_s),
            workflow_events_per_s: per_second(verdict.messages, to_last_end_s),
            ack_ms,
            completion_ms: if event {
                Latency::from_micros(&seen.to_end)
            } else {
                ack_ms
            },
            stage_ms: stages.collect(),
            in_time: if event { seen.in_time } else { flowed.accepted },
            cpu_s,
            samples: std::mem::take(&mut *samples),
            scaled: flowed.scaled,
            faults,
            problems: flowed.problems,
            replay: None,
            work: BTreeMap::new(),
            verdict,
        }
    }
}

/// What the services have done, as far as they say.
pub(super) async fn work(supervisor: &Supervisor) -> BTreeMap<String, Work> {
    let mut work = BTreeMap::new();
    for name in supervisor.workers() {
        if let Some(stats) = supervisor.stats(&name).await {
            let done = Work {
                handled: stats.handled,
                commits: stats.commits,
                retries: stats.retries,
            };
            work.insert(name, done);
        }
    }
    work
}
