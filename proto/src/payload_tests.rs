//! Payload reading across part boundaries.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn reading_does_not_depend_on_part_boundaries(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8),
        takes in prop::collection::vec(0usize..16, 0..12),
    ) {
        let whole: Vec<u8> = parts.concat();
        let split: Payload = parts.into_iter().map(Bytes::from).collect();
        let joined = Payload::from(Bytes::from(whole.clone()));
        prop_assert_eq!(&split, &joined);
        prop_assert_eq!(split.to_contiguous(), Bytes::from(whole));
        let (mut a, mut b) = (split.reader(), joined.reader());
        for count in takes {
            prop_assert_eq!(a.take(count), b.take(count));
            prop_assert_eq!(a.remaining(), b.remaining());
        }
    }
}
