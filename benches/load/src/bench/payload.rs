//! Payloads, with the time they were meant to be sent in their first eight bytes.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::workload::Workload;

/// Where the time stands.
const TIME_BYTES: usize = 8;

/// How payloads are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayloadPlan {
    /// Bytes of each.
    pub size: usize,
    /// Their content, when a file has it.
    pub file: Option<PathBuf>,
    /// The part that is random, 0 to 1.
    pub random_ratio: f64,
    /// How many different ones.
    pub pool: usize,
}

impl PayloadPlan {
    /// As the workload says. A payload file that is not there is replaced by random bytes.
    pub fn of(workload: &Workload) -> Self {
        let file = workload.payload_file.clone().filter(|file| file.exists());
        let random = workload.use_randomized_payloads;
        let (ratio, pool) = (
            workload.random_bytes_ratio,
            workload.randomized_payload_pool_size,
        );
        Self {
            size: workload.message_size,
            file,
            random_ratio: if random { ratio.clamp(0.0, 1.0) } else { 1.0 },
            pool: if random { pool.clamp(1, 10_000) } else { 16 },
        }
    }
}

/// Ready-made payloads, given out in turn.
pub struct Payloads {
    pool: Vec<Vec<u8>>,
    turn: usize,
}

impl Payloads {
    /// Makes them.
    pub fn new(plan: &PayloadPlan) -> anyhow::Result<Self> {
        if let Some(file) = &plan.file {
            let mut bytes =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            if plan.size > 0 {
                bytes.resize(plan.size, b' ');
            }
            return Ok(Self {
                pool: vec![bytes],
                turn: 0,
            });
        }
        let mut random = StdRng::seed_from_u64(11);
        let pool = (0..plan.pool.max(1)).map(|_| {
            let mut bytes = vec![b' '; plan.size];
            let part = (plan.size as f64 * plan.random_ratio) as usize;
            if let Some(part) = bytes.get_mut(..part) {
                random.fill_bytes(part);
            }
            bytes
        });
        Ok(Self {
            pool: pool.collect(),
            turn: 0,
        })
    }
    /// The next one, meant to be sent at this time in nanoseconds since 1970.
    pub fn next(&mut self, meant_ns: u64) -> Bytes {
        self.turn = (self.turn + 1) % self.pool.len().max(1);
        let mut bytes = self.pool.get(self.turn).cloned().unwrap_or_default();
        if let Some(time) = bytes.get_mut(..TIME_BYTES) {
            time.copy_from_slice(&meant_ns.to_le_bytes());
        }
        Bytes::from(bytes)
    }
}

/// When this payload was meant to be sent; absent in payloads that have no room for it.
pub fn meant_ns(value: &[u8]) -> Option<u64> {
    let bytes = value.get(..TIME_BYTES)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}
