//! The published examples of the Java client's hash; more of them are golden files.

use super::*;

#[test]
fn published_examples() {
    for (key, expected) in [
        ("21", -973_932_308i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
    }
}

#[test]
fn partitions_are_in_range() {
    for partitions in [0, 1, 2, 6, 1_000, u32::MAX] {
        for key in [&b""[..], b"a", b"ab", b"abc", b"abcd", b"\xff\xfe\xfd"] {
            assert!(partition_for_key(key, partitions).0 < partitions.max(1));
        }
    }
}
