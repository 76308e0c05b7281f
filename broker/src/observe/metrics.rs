//! The metrics of this process, in the text format of Prometheus.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// How often recorded samples are folded into the histograms when nobody scrapes. Without it the
/// memory of unread samples would grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// Bounds for latencies in seconds: from a tenth of a fast fsync to a request's deadline.
const SECONDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Bounds for sizes in bytes: powers of four from one small record to the largest batch.
const BYTES: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Access to everything that was recorded through the `metrics` macros.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
}

impl Metrics {
    /// Makes this process record its metrics. Call it once, before anything is recorded.
    ///
    /// # Errors
    /// When another recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = builder()?.install_recorder()?;
        metrics::gauge!("highwater_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { handle })
    }

    /// Metrics that nothing records to, for a broker that is one of several in a process.
    ///
    /// # Errors
    /// Never for the bounds above; the builder's signature has it.
    pub fn detached() -> Result<Self, BuildError> {
        Ok(Self {
            handle: builder()?.build_recorder().handle(),
        })
    }

    /// The current values, in the text exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the memory of samples bounded until `stop`. Cancellation-safe.
    pub async fn upkeep(self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(UPKEEP))
            .await
            .is_some()
        {
            self.handle.run_upkeep();
        }
    }
}
