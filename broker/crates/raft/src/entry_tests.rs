//! The stored form, byte by byte; both forms there and back; bad bytes are errors.

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;

use super::{from_lane, from_stored, stored_len, to_lane, to_stored};
use crate::testing::command;
use crate::types::{Command, Entry, Membership, Node, log_id};

fn entries() -> Vec<Entry> {
    let members = [(1, "a:1"), (2, "b:2"), (300, "")];
    let nodes = members.map(|(node, addr)| {
        (
            node,
            Node {
                addr: addr.to_owned(),
            },
        )
    });
    let voters = vec![[1, 2].into(), [2, 300].into()];
    let membership = Membership::new(voters, std::collections::BTreeMap::from(nodes)).unwrap();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Command(command("x", 1, 40))),
        EntryPayload::Membership(membership),
    ];
    let entry = |(index, payload)| Entry {
        log_id: log_id(5, index),
        payload,
    };
    (258..).zip(payloads).map(entry).collect()
}

#[test]
fn the_stored_form_is_as_written_in_format_md() {
    let golden: [&[u8]; 3] = [
        include_bytes!("../golden/entry-blank-v1.bin"),
        include_bytes!("../golden/entry-command-v1.bin"),
        include_bytes!("../golden/entry-membership-v1.bin"),
    ];
    let mut heads = BytesMut::new();
    for (entry, golden) in entries().iter().zip(golden) {
        let stored = to_stored(entry, &mut heads).to_contiguous();
        assert_eq!(stored, golden);
        assert_eq!(
            from_stored(entry.log_id.index(), stored.clone()).unwrap(),
            *entry
        );
        if !matches!(entry.payload, EntryPayload::Membership(_)) {
            assert_eq!(stored.len(), stored_len(entry));
        }
    }
}

#[test]
fn lanes_carry_entries_there_and_back() {
    for entry in entries() {
        assert_eq!(from_lane(to_lane(&entry)).unwrap(), entry);
    }
}

#[test]
fn bad_bytes_are_errors() {
    let mut heads = BytesMut::new();
    for entry in entries() {
        let index = entry.log_id.index();
        let stored = to_stored(&entry, &mut heads).to_contiguous();
        assert!(
            from_stored(index + 1, stored.clone()).is_err(),
            "another index"
        );
        for len in 0..super::HEAD_LEN {
            assert!(
                from_stored(index, stored.slice(..len)).is_err(),
                "{len} bytes"
            );
        }
        for at in [0, 1] {
            let mut bytes = stored.to_vec();
            *bytes.get_mut(at).unwrap() = 9;
            assert!(from_stored(index, Bytes::from(bytes)).is_err());
        }
    }
}
