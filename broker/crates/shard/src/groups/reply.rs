//! What apply says of a command to a group.

use highwater_proto::internal::{GroupItem, GroupReply};

/// Why a group's command, or one item of it, changed nothing. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u32)]
pub enum GroupRefusal {
    /// No such group in this shard.
    #[error("the group does not exist")]
    UnknownGroup = 1,
    /// It was expelled, or never joined.
    #[error("it is no member of the group (any more); it holds nothing and must join again")]
    UnknownMember = 2,
    /// The partition is not held under this epoch.
    #[error("the partition is not held by this member under this epoch")]
    FencedMember = 3,
    /// Another member has the instance id.
    #[error("another process has taken over this instance id; do not join again")]
    FencedInstance = 4,
    /// It has members.
    #[error("the group has members")]
    NotEmpty = 5,
    /// It exists already.
    #[error("the group exists")]
    Exists = 6,
    /// As many members as a group may have.
    #[error("the group has as many members as it may have")]
    GroupFull = 7,
    /// As many groups as a shard may host.
    #[error("the shard hosts as many groups as it may")]
    TooManyGroups = 8,
    /// Below the committed offset.
    #[error("the offset is below the committed one")]
    CommitBehind = 9,
    /// The text beside an offset is too long.
    #[error("the metadata of an offset is longer than 4096 bytes")]
    MetadataTooLarge = 10,
    /// As many parked keys as a group may have.
    #[error("the group has as many parked keys as it may have; redrive some first")]
    ParkedFull = 11,
    /// Some other bound.
    #[error("a bound of the group is passed: names, subscription, key or number of partitions")]
    Limit = 12,
    /// The group has changed since the command was made.
    #[error("the group has changed since")]
    Stale = 13,
    /// The shard's rules do not know groups yet.
    #[error("groups need feature level 2; the upgrade of the brokers is not finished")]
    Unsupported = 14,
    /// The command says nothing that could be done.
    #[error("the command is incomplete")]
    Incomplete = 15,
}

const ALL: [GroupRefusal; 15] = [
    GroupRefusal::UnknownGroup,
    GroupRefusal::UnknownMember,
    GroupRefusal::FencedMember,
    GroupRefusal::FencedInstance,
    GroupRefusal::NotEmpty,
    GroupRefusal::Exists,
    GroupRefusal::GroupFull,
    GroupRefusal::TooManyGroups,
    GroupRefusal::CommitBehind,
    GroupRefusal::MetadataTooLarge,
    GroupRefusal::ParkedFull,
    GroupRefusal::Limit,
    GroupRefusal::Stale,
    GroupRefusal::Unsupported,
    GroupRefusal::Incomplete,
];

impl GroupRefusal {
    /// Its number on the wire; 0 is none.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
    /// The refusal of a number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        ALL.into_iter().find(|refusal| refusal.number() == number)
    }
}

/// What became of one item of a command: a partition of a commit, a key to be unparked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemOutcome {
    /// It changed nothing, for this reason.
    pub refusal: Option<GroupRefusal>,
    /// The committed offset now in force; the last offset of a key that stays parked.
    pub value: Option<u64>,
}

/// What a command to a group did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupOutcome {
    /// One for each item of the command, where it has items that are decided one by one.
    pub items: Vec<ItemOutcome>,
    /// Members removed, groups forgotten, keys parked.
    pub count: u64,
}

impl GroupOutcome {
    pub(super) fn counted(count: usize) -> Self {
        Self {
            items: Vec::new(),
            count: count as u64,
        }
    }
}

/// As bytes of a shard's reply.
pub(crate) fn to_wire(outcome: &Result<GroupOutcome, GroupRefusal>) -> GroupReply {
    match outcome {
        Ok(outcome) => GroupReply {
            refusal: 0,
            items: outcome.items.iter().map(item).collect(),
            count: outcome.count,
        },
        Err(refusal) => GroupReply {
            refusal: refusal.number(),
            ..GroupReply::default()
        },
    }
}

fn item(item: &ItemOutcome) -> GroupItem {
    GroupItem {
        refusal: item.refusal.map_or(0, GroupRefusal::number),
        value: item.value,
    }
}

/// From the message; `None` when it has a number that this release does not know.
pub(crate) fn from_wire(reply: &GroupReply) -> Option<Result<GroupOutcome, GroupRefusal>> {
    if reply.refusal != 0 {
        return GroupRefusal::of(reply.refusal).map(Err);
    }
    let items = reply.items.iter().map(|item| {
        let refusal = match item.refusal {
            0 => None,
            number => Some(GroupRefusal::of(number)?),
        };
        Some(ItemOutcome {
            refusal,
            value: item.value,
        })
    });
    Some(Ok(GroupOutcome {
        items: items.collect::<Option<_>>()?,
        count: reply.count,
    }))
}
