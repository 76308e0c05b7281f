//! Money in integer cents. Nothing in this crate ever holds an amount as a float.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An amount in cents; negative for credits.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cents(pub i64);

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// Nothing but white space.
    #[error("the amount is blank")]
    Blank,
    /// Not digits with at most one decimal point.
    #[error("{0:?} is not a decimal amount")]
    NotDecimal(String),
    /// Rounding would be needed, and nobody said how.
    #[error("{0:?} has a fraction of a cent")]
    FractionOfCent(String),
    /// More than an amount can be.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

impl Cents {
    /// Reads a decimal amount exactly: `70`, `42.3` and `29.85` are 7000, 4230 and 2985 cents.
    ///
    /// # Errors
    /// When the text is blank, no decimal number, or not a whole number of cents.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(MoneyError::Blank);
        }
        let not_decimal = || MoneyError::NotDecimal(text.to_owned());
        let too_large = || MoneyError::TooLarge(text.to_owned());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !numeric(whole) || !numeric(fraction) {
            return Err(not_decimal());
        }
        let fraction = fraction.trim_end_matches('0');
        let hundredths = match fraction.len() {
            0 => 0,
            1 => 10 * fraction.parse::<i64>().map_err(|_| not_decimal())?,
            2 => fraction.parse().map_err(|_| not_decimal())?,
            _ => return Err(MoneyError::FractionOfCent(text.to_owned())),
        };
        let cents = whole
            .parse::<i64>()
            .ok()
            .and_then(|whole| whole.checked_mul(100))
            .and_then(|whole| whole.checked_add(hundredths))
            .ok_or_else(too_large)?;
        Ok(Self(if negative { -cents } else { cents }))
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", amount / 100, amount % 100)
    }
}

impl Add for Cents {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Cents {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), Add::add)
    }
}
