//! How one service is run: a JSON document that its supervisor writes and names on its command
//! line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the services are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Over the broker.
    Event,
    /// Each calls the next over HTTP, without deadlines or retries.
    RestNaive,
    /// Each calls the next over HTTP, with deadlines, retries and circuit breakers.
    RestHardened,
    /// One process, one store.
    Monolith,
    /// One process, one store, and each transaction's record on the disks of most brokers before the
    /// answer.
    MonolithReplicated,
}

impl Mode {
    /// All of them, the one over the broker first.
    pub const ALL: [Self; 5] = [
        Self::Event,
        Self::RestNaive,
        Self::RestHardened,
        Self::Monolith,
        Self::MonolithReplicated,
    ];

    /// Whether it needs brokers.
    #[must_use]
    pub const fn has_brokers(self) -> bool {
        matches!(self, Self::Event | Self::MonolithReplicated)
    }

    /// Whether everything is one process.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Monolith | Self::MonolithReplicated)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::RestNaive => "rest-naive",
            Self::RestHardened => "rest-hardened",
            Self::Monolith => "monolith",
            Self::MonolithReplicated => "monolith-replicated",
        }
    }
}

/// A service that is broken on purpose, to show that the checker finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mutant {
    /// Handles every delivery as if it were the first.
    NoInbox,
    /// Its provider has the effect again for a key that it knows.
    DoubleCharge,
    /// It publishes a price that is not that of the input.
    WrongPrice,
}

/// One service's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// How services are put together.
    pub mode: Mode,
    /// Which of the workers that share the service's topic, from 1 on.
    pub worker: u32,
    /// The brokers, `host:port` each.
    pub brokers: Vec<String>,
    /// Its store's file.
    pub store: PathBuf,
    /// Where it writes the address of its HTTP door once that is open. The files of the other
    /// services lie beside it.
    pub address_file: PathBuf,
    /// The address to listen on; none: any port of the loopback address.
    pub listen: Option<String>,
    /// The journal of what its provider has done, if it calls one.
    pub effects: Option<PathBuf>,
    /// How it is broken.
    pub mutant: Option<Mutant>,
    /// Orders per second that the gateway takes in; beyond it they are refused.
    pub rate_limit: f64,
    /// How long a call outside takes, in microseconds.
    pub service_time_us: u64,
}
