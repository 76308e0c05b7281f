//! Variable-length numbers: round trip, lengths, and every malformed shape.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn what_is_written_is_read(value: i64) {
        let mut bytes = Vec::new();
        put_i64(&mut bytes, value);
        prop_assert_eq!(bytes.len(), len_i64(value));
        prop_assert_eq!(read_i64(&bytes), Ok((value, bytes.len())));
        prop_assert_eq!(read_i64(bytes.split_last().unwrap().1), Err(VarintError::Truncated));
        match i32::try_from(value) {
            Ok(small) => prop_assert_eq!(read_i32(&bytes), Ok((small, bytes.len()))),
            Err(_) => prop_assert_eq!(read_i32(&bytes), Err(VarintError::TooLong)),
        }
    }

    #[test]
    fn small_numbers_too(value: i32) {
        let mut bytes = Vec::new();
        put_i64(&mut bytes, i64::from(value));
        prop_assert_eq!(read_i32(&bytes), Ok((value, bytes.len())));
    }
}

#[test]
fn known_encodings() {
    for (value, expected) in [
        (0i64, &[0u8][..]),
        (-1, &[1]),
        (1, &[2]),
        (63, &[0x7e]),
        (-64, &[0x7f]),
        (64, &[0x80, 0x01]),
        (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
        (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let mut bytes = Vec::new();
        put_i64(&mut bytes, value);
        assert_eq!(bytes, expected, "{value}");
    }
}

#[test]
fn numbers_longer_than_their_type_are_refused() {
    assert_eq!(read_i32(&[0x80; 5]), Err(VarintError::TooLong));
    assert_eq!(
        read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
        Err(VarintError::TooLong)
    );
    assert_eq!(read_i64(&[0xff; 10]), Err(VarintError::TooLong));
    let mut too_many_bits = [0xff; 10];
    too_many_bits[9] = 0x02;
    assert_eq!(read_i64(&too_many_bits), Err(VarintError::TooLong));
    assert_eq!(read_i64(&[]), Err(VarintError::Truncated));
}
