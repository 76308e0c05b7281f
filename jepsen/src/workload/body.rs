//! What a record holds: its value, and filling that follows from the value, so that a reader can
//! tell whether it got the very bytes that were sent.

use highwater_checker::{Offset, Value};

/// A record's bytes.
pub(super) fn encode(value: Value, filling: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + filling);
    bytes.extend(value.0.to_be_bytes());
    bytes.extend((0..filling).map(|place| fill(value, place)));
    bytes
}

/// The value that lies in a record. Bytes that nobody ever sent become a value that nobody ever
/// sent, which the check reports as a phantom.
pub(super) fn decode(bytes: Option<&[u8]>, offset: Offset) -> Value {
    let whole = || {
        let (head, filling) = bytes?.split_first_chunk::<8>()?;
        let value = Value(i64::from_be_bytes(*head));
        let right = filling
            .iter()
            .enumerate()
            .all(|(place, byte)| *byte == fill(value, place));
        (right && value.0 >= 0).then_some(value)
    };
    whole().unwrap_or(Value(-1 - i64::try_from(offset.0).unwrap_or(0)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "any byte will do"
)]
fn fill(value: Value, place: usize) -> u8 {
    (value.0 as usize)
        .wrapping_mul(31)
        .wrapping_add(place.wrapping_mul(7)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_to_a_record_shows() {
        let bytes = encode(Value(77), 40);
        assert_eq!(decode(Some(&bytes), Offset(5)), Value(77));
        assert_eq!(decode(None, Offset(5)), Value(-6));
        assert_eq!(decode(Some(&bytes[..7]), Offset(5)), Value(-6));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_ne!(decode(Some(&damaged), Offset(5)), Value(77), "byte {place}");
        }
    }
}
