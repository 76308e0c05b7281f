//! W3C trace context in record headers: `traceparent`, for those who want it.

use bytes::Bytes;

use crate::record::{ConsumedRecord, ProducerRecord};

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace, as <https://www.w3.org/TR/trace-context/> writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: u128,
    /// The span that caused this.
    pub span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a `traceparent` value; absent when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hex::<2>(parts.next()?)?;
        let trace_id = hex::<32>(parts.next()?)?;
        let span_id = u64::try_from(hex::<16>(parts.next()?)?).ok()?;
        let flags = hex::<2>(parts.next()?)?;
        // Version 0 has exactly four parts; 255 is forbidden; zero ids are void.
        let extra = parts.next().is_some();
        let void = version == 255 || trace_id == 0 || span_id == 0 || (version == 0 && extra);
        (!void).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
    /// The context a record carries.
    #[must_use]
    pub fn of(record: &ConsumedRecord) -> Option<Self> {
        Self::parse(std::str::from_utf8(record.header(TRACEPARENT)?).ok()?)
    }
    /// The record with this context in its headers; an earlier one is replaced.
    #[must_use]
    pub fn put(self, mut record: ProducerRecord) -> ProducerRecord {
        record.headers.retain(|(key, _)| key != TRACEPARENT);
        record
            .headers
            .push((TRACEPARENT.to_owned(), Some(Bytes::from(self.to_string()))));
        record
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = u8::from(self.sampled);
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

fn hex<const DIGITS: usize>(text: &str) -> Option<u128> {
    let lower = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() == DIGITS && lower {
        u128::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_and_mistakes_are_no_context() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceParent::parse(text).unwrap();
        assert!(context.sampled && context.to_string() == text);
        let record = context.put(context.put(ProducerRecord::to("t")));
        assert_eq!(record.headers.len(), 1);
        for wrong in [
            "",
            "00",
            "00-0-0-01",
            &text.to_uppercase(),
            &text.replace("00-", "ff-"),
            &format!("{text}-x"),
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }
}
