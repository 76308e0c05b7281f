//! Medians with their ranges, over the rounds of what is measured more than once.

use std::fmt;

use super::block::ROUND;
use super::done::{Done, DoneMode};

/// Median, lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub of: usize,
}

impl Spread {
    pub(super) fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            low,
            high,
            of: values.len(),
        })
    }
}

impl fmt::Display for Spread {
    /// With as many decimals as are asked for; a range where there is more than one value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(0);
        write!(f, "{:.decimals$}", self.median)?;
        if self.of > 1 {
            write!(
                f,
                " ({:.decimals$} to {:.decimals$}, {} runs)",
                self.low, self.high, self.of
            )?;
        }
        Ok(())
    }
}

/// The rounds of one thing that is measured.
pub(super) struct Rounds<'a> {
    /// What is measured: the name of its first block.
    pub name: &'a str,
    /// The rounds that are done, in order.
    pub done: Vec<&'a Done>,
}

impl<'a> Rounds<'a> {
    /// A figure of one mode over the rounds; none when no round had the mode.
    pub(super) fn of(&self, mode: &str, figure: impl Fn(&DoneMode) -> f64) -> Option<Spread> {
        let modes = self.done.iter().flat_map(|done| &done.modes);
        Spread::new(modes.filter(|run| run.mode == mode).map(figure))
    }

    /// The names of the modes, in the order in which they were run.
    pub(super) fn modes(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for run in self.done.iter().flat_map(|done| &done.modes) {
            if !names.contains(&run.mode.as_str()) {
                names.push(&run.mode);
            }
        }
        names
    }

    /// The rate that was aimed at.
    pub(super) fn rate(&self) -> f64 {
        self.done.first().map_or(0.0, |done| done.rate)
    }
}

/// What was measured under names that begin so, each with its rounds.
pub(super) fn rounds<'a>(results: &'a [Done], prefix: &str) -> Vec<Rounds<'a>> {
    let mut all: Vec<Rounds<'a>> = Vec::new();
    for done in results.iter().filter(|done| done.block.starts_with(prefix)) {
        let name = done.block.split(ROUND).next().unwrap_or_default();
        match all.iter_mut().find(|rounds| rounds.name == name) {
            Some(rounds) => rounds.done.push(done),
            None => all.push(Rounds {
                name,
                done: vec![done],
            }),
        }
    }
    all
}
