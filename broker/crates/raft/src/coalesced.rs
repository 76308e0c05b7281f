//! Coalesced heartbeats: one message by which a broker tells a peer of all idle groups that it leads there
//! (see `liveness.rs`), and its answer.
#![deny(clippy::indexing_slicing)]

use bytes::Bytes;
use highwater_proto::{NodeId, ShardId};
use prost::Message as _;

use crate::codec::CodecError;
use crate::registry::Registry;

/// Body of a COALESCED_HEARTBEAT: groups and the terms in which they are led. The answer has the same form,
/// and those of them for which it counts.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CoalescedMsg {
    #[prost(uint32, repeated, tag = "1")]
    groups: Vec<u32>,
    /// As many as groups.
    #[prost(uint64, repeated, tag = "2")]
    terms: Vec<u64>,
}

impl CoalescedMsg {
    pub(crate) fn push(&mut self, group: ShardId, term: u64) {
        self.groups.push(group.0);
        self.terms.push(term);
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.groups.iter().copied().zip(self.terms.iter().copied())
    }
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }
    pub(crate) fn from_bytes(body: Bytes) -> Result<Self, CodecError> {
        let message = Self::decode(body)?;
        if message.groups.len() != message.terms.len() {
            return Err(CodecError::Missing("a term of each group"));
        }
        Ok(message)
    }
}

/// Takes a peer's coalesced heartbeat, and answers.
pub(crate) fn take(registry: &Registry, from: NodeId, body: Bytes) -> Result<Bytes, CodecError> {
    let mut taken = CoalescedMsg::default();
    for (group, term) in CoalescedMsg::from_bytes(body)?.iter() {
        let led = registry
            .get(group)
            .is_some_and(|replica| replica.is_led_by(from, term));
        if led {
            taken.push(ShardId(group), term);
        }
    }
    Ok(taken.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_terms_go_there_and_back_in_pairs() {
        let mut message = CoalescedMsg::default();
        message.push(ShardId(3), 7);
        message.push(ShardId(300), 1 << 40);
        let golden = b"\x0a\x03\x03\xac\x02\x12\x07\x07\x80\x80\x80\x80\x80\x20";
        assert_eq!(message.to_bytes(), golden.as_slice());
        let back = CoalescedMsg::from_bytes(message.to_bytes()).unwrap();
        assert!(back.iter().eq([(3, 7), (300, 1 << 40)]));
        let odd = Bytes::from_static(b"\x0a\x01\x03");
        assert!(CoalescedMsg::from_bytes(odd).is_err());
    }
}
