//! Keys and how often each of them comes.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::workload::KeyDistributor;

const USUAL_COUNT: usize = 10_000;

/// Gives out keys.
pub struct Keys {
    kind: KeyDistributor,
    keys: Vec<Bytes>,
    /// For Zipf: the likelihood that a key is this one or an earlier one.
    cumulated: Vec<f64>,
    turn: usize,
    random: StdRng,
}

impl Keys {
    /// Of `count` keys; `seed` makes two producers differ.
    pub fn new(kind: KeyDistributor, count: Option<usize>, seed: u64) -> Self {
        let count = match kind {
            KeyDistributor::NoKey => 0,
            _ => count.unwrap_or(USUAL_COUNT).max(1),
        };
        let keys = (0..count)
            .map(|number| Bytes::from(format!("key-{number:08}")))
            .collect();
        let mut cumulated = Vec::new();
        if kind == KeyDistributor::Zipf {
            let total: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
            let mut sum = 0.0;
            for rank in 1..=count {
                sum += 1.0 / rank as f64 / total;
                cumulated.push(sum);
            }
        }
        Self {
            kind,
            keys,
            cumulated,
            turn: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }
    /// The next one.
    pub fn next(&mut self) -> Option<Bytes> {
        let index = match self.kind {
            KeyDistributor::NoKey => return None,
            KeyDistributor::KeyRoundRobin => {
                self.turn = (self.turn + 1) % self.keys.len();
                self.turn
            }
            KeyDistributor::RandomNano => self.random.random_range(0..self.keys.len()),
            KeyDistributor::Zipf => {
                let dice: f64 = self.random.random();
                let found = self.cumulated.partition_point(|&sum| sum < dice);
                found.min(self.keys.len() - 1)
            }
        };
        self.keys.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counts(kind: KeyDistributor, draws: usize) -> BTreeMap<Bytes, usize> {
        let mut keys = Keys::new(kind, Some(100), 7);
        let mut counts = BTreeMap::new();
        for _ in 0..draws {
            *counts.entry(keys.next().expect("a key")).or_default() += 1;
        }
        counts
    }

    #[test]
    fn each_distribution_has_its_shape() {
        assert_eq!(Keys::new(KeyDistributor::NoKey, None, 1).next(), None);
        let turns = counts(KeyDistributor::KeyRoundRobin, 1_000);
        assert!(turns.len() == 100 && turns.values().all(|&count| count == 10));
        let random = counts(KeyDistributor::RandomNano, 100_000);
        assert!(random.len() == 100 && random.values().all(|&n| (700..1_300).contains(&n)));
        let zipf = counts(KeyDistributor::Zipf, 100_000);
        let of = |key: &'static str| zipf.get(key.as_bytes()).copied().unwrap_or(0);
        let (first, tenth) = (of("key-00000000"), of("key-00000009"));
        // 1 / H(100) = 19.3 %, and a tenth of it.
        assert!((18_000..21_000).contains(&first), "{first}");
        assert!((1_700..2_200).contains(&tenth), "{tenth}");
    }
}
