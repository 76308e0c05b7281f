//! Messages there and back, and the meta of a checkpoint byte by byte.

use bytes::Bytes;
use openraft::raft::TransferLeaderError;

use super::*;

fn meta() -> SnapshotMeta {
    let nodes = BTreeMap::from([
        (
            1,
            Node {
                addr: "a:1".to_owned(),
            },
        ),
        (
            2,
            Node {
                addr: String::new(),
            },
        ),
    ]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    SnapshotMeta {
        last_log_id: Some(log_id(3, 300)),
        last_membership: StoredMembership::new(Some(log_id(0, 0)), membership),
    }
}

#[test]
fn the_meta_of_a_checkpoint_is_as_written_in_format_md() {
    let golden = include_bytes!("../golden/checkpoint-meta-v1.bin");
    let encoded = encode_meta(&meta());
    assert_eq!(encoded, golden.as_slice());
    assert_eq!(decode_meta(&encoded).unwrap(), meta());
}

#[test]
fn values_of_the_slots_are_as_written_in_format_md() {
    let vote = Vote::new_committed(7, 2);
    assert_eq!(encode_vote(&vote), b"\x08\x07\x10\x02\x18\x01".as_slice());
    assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    let id = log_id(3, 300);
    assert_eq!(encode_log_id(&id), b"\x08\x03\x10\xac\x02".as_slice());
    assert_eq!(decode_log_id(&encode_log_id(&id)).unwrap(), id);
    let first = log_id(0, 0);
    assert_eq!(decode_log_id(&encode_log_id(&first)).unwrap(), first);
}

#[test]
fn replies_come_back_as_they_were() {
    for reply in [
        AppendResponse::Success,
        AppendResponse::PartialSuccess(None),
        AppendResponse::PartialSuccess(Some(log_id(1, 2))),
        AppendResponse::Conflict,
        AppendResponse::HigherVote(Vote::new(4, 3)),
    ] {
        assert_eq!(
            decode_append_reply(encode_append_reply(&reply)).unwrap(),
            reply
        );
    }
    let request = TransferRequest::new(Vote::new_committed(2, 1), 3, Some(log_id(2, 9)));
    assert_eq!(decode_transfer(encode_transfer(&request)).unwrap(), request);
    for reply in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged {
            expected: Vote::new_committed(2, 1),
            actual: Vote::new(3, 2),
        }),
        Err(TransferLeaderError::LogNotFlushed {
            expected: Some(log_id(2, 9)),
            actual: None,
        }),
    ] {
        let encoded = encode_transfer_reply(&reply);
        assert_eq!(decode_transfer_reply(&request, encoded).unwrap(), reply);
    }
    let mut request = VoteRequest::new(Vote::new(4, 3), None);
    request.leadership_transfer = true;
    assert_eq!(
        decode_vote_request(encode_vote_request(&request)).unwrap(),
        request
    );
    let reply = VoteResponse::new(Vote::new(4, 3), Some(log_id(1, 1)), true);
    assert_eq!(decode_vote_reply(encode_vote_reply(&reply)).unwrap(), reply);
}

#[test]
fn the_head_of_an_append_comes_back_as_it_went() {
    let head = AppendHead {
        vote: Vote::new_committed(4, 3),
        previous: Some(log_id(3, 8)),
        committed: None,
        everywhere: 7,
    };
    let back = AppendHead::decode(head.encode()).unwrap();
    assert_eq!(back.vote, head.vote);
    assert_eq!(back.previous, head.previous);
    assert_eq!(back.committed, head.committed);
    assert_eq!(back.everywhere, 7);
}

#[test]
fn bad_bytes_are_errors() {
    let bad = Bytes::from_static(b"\xff\xff\xff");
    assert!(decode_vote(&bad).is_err());
    assert!(decode_meta(&bad).is_err());
    assert!(AppendHead::decode(bad.clone()).is_err());
    assert!(
        AppendHead::decode(Bytes::new()).is_err(),
        "an append without a vote"
    );
    assert!(
        decode_append_reply(Bytes::from_static(b"\x08\x09")).is_err(),
        "kind 9"
    );
    let encoded = encode_meta(&meta());
    for len in 1..encoded.len() {
        // Never a panic; some prefixes are messages of their own.
        let _ = decode_meta(&encoded.slice(..len));
    }
}
