//! The load's journal, kept outside the broker: what was intended, and how each order
//! ended. Format and reading are pure and live here; `file` does the file calls.
//!
//! One line per entry: a letter, its numbers, and a checksum over both. A torn last line is cut in
//! silence, because the process may have died while writing it; anything else that does not read
//! is damage and an error.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::order::OrderNumber;

mod file;
mod task;

pub use file::JournalFile;
pub(crate) use task::{Durable, JournalHandle};

/// One thing worth remembering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The orders `from` up to but not including `to` are about to be sent.
    Intended {
        /// The first.
        from: OrderNumber,
        /// One past the last.
        to: OrderNumber,
    },
    /// The gateway has taken the order over.
    Accepted(OrderNumber),
    /// Certainly not taken over.
    Refused(OrderNumber),
    /// May or may not be taken over.
    Unknown(OrderNumber),
}

/// How an order ended, as far as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// In the pipeline for certain.
    Accepted,
    /// Not in the pipeline for certain.
    Refused,
    /// Nobody knows. Also what was intended and has no later entry.
    Unknown,
}

/// Why a journal cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalError {
    /// A line before the last one does not read.
    #[error("line {line} of the journal is damaged: {text:?}")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// What it holds.
        text: String,
    },
    /// An order has two different ends, or one without having been intended.
    #[error("line {line} of the journal: order {} {problem}", .order.0)]
    Contradiction {
        /// Counted from 1.
        line: usize,
        /// The order.
        order: OrderNumber,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Entry {
    /// The line, its end included.
    #[must_use]
    pub fn to_line(&self) -> String {
        let body = match self {
            Self::Intended { from, to } => format!("i {} {}", from.0, to.0),
            Self::Accepted(order) => format!("a {}", order.0),
            Self::Refused(order) => format!("r {}", order.0),
            Self::Unknown(order) => format!("u {}", order.0),
        };
        format!("{body} {:08x}\n", checksum(&body))
    }

    fn parse(line: &str) -> Option<Self> {
        let (body, sum) = line.rsplit_once(' ')?;
        if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != checksum(body) {
            return None;
        }
        let fields: Vec<&str> = body.split(' ').collect();
        let order = |text: &str| text.parse().ok().map(OrderNumber);
        match fields.as_slice() {
            ["i", from, to] => Some(Self::Intended {
                from: order(from)?,
                to: order(to)?,
            }),
            ["a", number] => order(number).map(Self::Accepted),
            ["r", number] => order(number).map(Self::Refused),
            ["u", number] => order(number).map(Self::Unknown),
            _ => None,
        }
    }
}

/// FNV-1a, 32 bits: enough to tell a torn line from a whole one.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A journal, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    fates: BTreeMap<OrderNumber, Fate>,
    /// Orders intended so far, one past the last.
    intended: u64,
}

impl Journal {
    /// Reads a whole journal.
    ///
    /// # Errors
    /// When a line other than a torn last one does not read, or lines contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, JournalError> {
        let mut journal = Self::default();
        let mut lines = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .peekable();
        while let Some((at, raw)) = lines.next() {
            let line = at + 1;
            let text = String::from_utf8_lossy(raw);
            let entry = text.strip_suffix('\n').and_then(Entry::parse);
            match entry {
                Some(entry) => journal.add(entry, line)?,
                None if lines.peek().is_none() => break,
                None => {
                    let text = text.trim_end().to_owned();
                    return Err(JournalError::Damaged { line, text });
                }
            }
        }
        Ok(journal)
    }

    fn add(&mut self, entry: Entry, line: usize) -> Result<(), JournalError> {
        let (order, fate) = match entry {
            Entry::Intended { from, to } => {
                if from.0 != self.intended || to < from {
                    let problem = "is intended out of turn";
                    return Err(JournalError::Contradiction {
                        line,
                        order: from,
                        problem,
                    });
                }
                self.intended = to.0;
                return Ok(());
            }
            Entry::Accepted(order) => (order, Fate::Accepted),
            Entry::Refused(order) => (order, Fate::Refused),
            Entry::Unknown(order) => (order, Fate::Unknown),
        };
        if order.0 >= self.intended {
            let problem = "ended without having been intended";
            return Err(JournalError::Contradiction {
                line,
                order,
                problem,
            });
        }
        match self.fates.insert(order, fate) {
            Some(known) if known != fate => {
                let problem = "ended twice, differently";
                Err(JournalError::Contradiction {
                    line,
                    order,
                    problem,
                })
            }
            _ => Ok(()),
        }
    }

    /// How many orders were intended; their numbers are those below.
    #[must_use]
    pub const fn intended(&self) -> u64 {
        self.intended
    }

    /// How an order ended; none when it was never intended.
    #[must_use]
    pub fn fate(&self, order: OrderNumber) -> Option<Fate> {
        (order.0 < self.intended).then(|| self.fates.get(&order).copied().unwrap_or(Fate::Unknown))
    }

    /// Every intended order and how it ended.
    pub fn fates(&self) -> impl Iterator<Item = (OrderNumber, Fate)> {
        (0..self.intended).map(OrderNumber).map(|order| {
            (
                order,
                self.fates.get(&order).copied().unwrap_or(Fate::Unknown),
            )
        })
    }
}
