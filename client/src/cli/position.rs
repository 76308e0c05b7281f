//! `-o`: where `consume` begins. `start`, `end`, `42`, `+10`, `-10`, `@2026-11-20T10:00Z`,
//! `@1763632800000`, `@-15m`.

use std::str::FromStr;

use highwater_proto::{Offset, TimestampMs};

use crate::consumer::Start;

/// A place to begin, not yet tied to the present time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// No need of a clock.
    Fixed(Start),
    /// So many milliseconds ago.
    Ago(i64),
}

impl Position {
    /// Ties it to `now_ms`, milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(self, now_ms: i64) -> Start {
        match self {
            Self::Fixed(start) => start,
            Self::Ago(ms) => Start::Time(TimestampMs(now_ms.saturating_sub(ms))),
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            digits.parse::<u64>().map_err(|_| {
                format!("{text:?} is not a place: start, end, 42, +10, -10, @TIME or @-15m")
            })
        };
        if let Some(time) = text.strip_prefix('@') {
            return match time.strip_prefix('-') {
                Some(span) => span_ms(span).map(Self::Ago),
                None => time_ms(time).map(|ms| Self::Fixed(Start::Time(TimestampMs(ms)))),
            };
        }
        Ok(Self::Fixed(match text {
            "start" | "earliest" | "beginning" | "oldest" => Start::Earliest,
            "end" | "latest" | "newest" => Start::Latest,
            _ => match (text.strip_prefix('+'), text.strip_prefix('-')) {
                (Some(after), _) => Start::AfterEarliest(number(after)?),
                (_, Some(before)) => Start::BeforeLatest(number(before)?),
                _ => Start::Offset(Offset(number(text)?)),
            },
        }))
    }
}

/// A time: RFC 3339 with or without seconds, a date, or digits (milliseconds).
fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let date = text.parse::<jiff::civil::Date>().ok();
    let midnight = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    midnight
        .map(|midnight| midnight.timestamp().as_millisecond())
        .ok_or_else(|| format!("{text:?} is not a time such as 2026-11-20T10:00Z"))
}

/// A span: numbers with units, `90s`, `15m`, `1h30m`, `2d`.
fn span_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a span such as 15m, 1h30m or 2d");
    let (mut total, mut digits) = (0_i64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return Err(wrong()),
        };
        let count: i64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        let part = count.checked_mul(unit).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if digits.is_empty() && total > 0 {
        Ok(total)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let at = |text: &str| text.parse::<Position>().unwrap().at(10_000_000);
        assert_eq!(at("start"), Start::Earliest);
        assert_eq!(at("latest"), Start::Latest);
        assert_eq!(at("42"), Start::Offset(Offset(42)));
        assert_eq!(at("+10"), Start::AfterEarliest(10));
        assert_eq!(at("-10"), Start::BeforeLatest(10));
        let ten = Start::Time(TimestampMs(1_795_168_800_000));
        assert_eq!(at("@2026-11-20T10:00Z"), ten);
        assert_eq!(at("@2026-11-20T11:00:00+01:00"), ten);
        assert_eq!(at("@1795168800000"), ten);
        assert_eq!(
            at("@2026-11-20"),
            Start::Time(TimestampMs(1_795_132_800_000))
        );
        assert_eq!(at("@-15m"), Start::Time(TimestampMs(9_100_000)));
        assert_eq!(at("@-1h30m"), Start::Time(TimestampMs(4_600_000)));
        for wrong in [
            "",
            "middle",
            "+",
            "-x",
            "@",
            "@soon",
            "@-",
            "@-15",
            "@-15y",
            "@-99999999999999d",
        ] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
