//! Headers and frames survive a round trip, and no flipped bit goes unnoticed.

use super::*;

const FILE: FileHeader = FileHeader {
    generation: 7,
    first_sequence: 900,
    previous_end: 65_536,
    oldest: 3,
};

const GROUP: GroupHeader = GroupHeader {
    generation: 7,
    sequence: 901,
    body_len: 1000,
    frames: 2,
    heads_crc: 0xdead_beef,
    idle: false,
    durable_to: 4096,
    oldest: 3,
};

fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(move |bit| {
        let mut flipped = bytes.to_vec();
        if let Some(byte) = flipped.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        flipped
    })
}

#[test]
fn file_headers() {
    let bytes = FILE.encode();
    assert_eq!(FileHeader::parse(&bytes), ParsedFileHeader::Valid(FILE));
    for flipped in flips(&bytes) {
        assert_eq!(FileHeader::parse(&flipped), ParsedFileHeader::Invalid);
    }
    for len in 0..bytes.len() {
        assert_eq!(
            FileHeader::parse(bytes.get(..len).unwrap()),
            ParsedFileHeader::Invalid
        );
    }
}

#[test]
fn group_headers_are_bound_to_their_generation_and_place() {
    let bytes = GROUP.encode(4096);
    assert_eq!(GroupHeader::parse(&bytes, 7, 4096), Some(GROUP));
    assert_eq!(GroupHeader::parse(&bytes, 8, 4096), None);
    assert_eq!(GroupHeader::parse(&bytes, 7, 4160), None);
    for flipped in flips(&bytes) {
        assert_eq!(GroupHeader::parse(&flipped, 7, 4096), None);
    }
    for len in 0..bytes.len() {
        assert_eq!(GroupHeader::parse(bytes.get(..len).unwrap(), 7, 4096), None);
    }
    assert!(GroupHeader::looks_begun(&bytes, 7) && !GroupHeader::looks_begun(&bytes, 6));
    assert_eq!(GROUP.span(), 1088);
}

fn is_whole(bytes: &[u8], generation: u64) -> Option<FrameHead> {
    let (head, crc, mut check) = FrameHead::parse(bytes, generation)?;
    check.update(bytes.get(FRAME_HEAD_LEN..)?);
    check.matches(crc).then_some(head)
}

#[test]
fn frames_of_every_kind() {
    let kinds = (0..=255).filter_map(FrameKind::parse);
    for kind in kinds {
        let head = FrameHead {
            kind,
            slot: 3,
            group: 12,
            len: 6,
            index: 1 << 40,
        };
        let mut bytes = head.encode(5, [&b"pay"[..], b"load"].into_iter()).to_vec();
        bytes.extend_from_slice(b"payload");
        assert_eq!(is_whole(&bytes, 5), Some(head));
        assert_eq!(is_whole(&bytes, 4), None, "of an earlier use of the file");
        for flipped in flips(&bytes) {
            assert_eq!(is_whole(&flipped, 5), None);
        }
    }
}
