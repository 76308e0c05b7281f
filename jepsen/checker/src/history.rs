//! A history: what single-threaded client processes asked for, and how each request ended.
//!
//! Entries are kept flat (one vector of entries, one of actions), so that ten million of them cost
//! a few hundred bytes each at most and no allocation of their own.

use thiserror::Error;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A partition, numbered across all topics of a history.
    Key(u32)
);
number!(
    /// A record's content. Unique per partition: every send uses a fresh one.
    Value(i64)
);
number!(
    /// A record's place in its partition.
    Offset(u64)
);
number!(
    /// One single-threaded client. It is retired by an operation that ends `info`.
    Process(u64)
);

/// What a replica holds of a partition, in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub u64);

/// Whether an entry begins an operation, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The request was made.
    Invoke,
    /// It certainly took effect.
    Ok,
    /// It certainly did not.
    Fail,
    /// Unknown: it may or may not take effect, also later.
    Info,
}

/// What an operation is for. The checks go by the actions; this tells assignments apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Appends records.
    Send,
    /// Reads on from the process's positions.
    Poll,
    /// Sends and polls in one operation.
    Transaction,
    /// Takes exactly these partitions, whatever others do.
    Assign,
    /// Joins a group: partitions come and go by rebalances.
    Subscribe,
    /// Asks the leader for the end of a partition.
    Latest,
    /// Sums up what one replica holds of a partition.
    Digest,
    /// Writes down how far a group has processed a partition.
    Commit,
    /// Asks how far a group has processed a partition.
    Committed,
    /// Deletes the first records of a partition.
    Trim,
    /// Asks the leader for the first offset kept.
    Earliest,
    /// Deletes a topic.
    Delete,
    /// Says that only the latest record of each key of a partition is kept.
    Compacted,
}

/// One step of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A record sent; the offset is known once it was acknowledged.
    Send {
        /// Where to.
        key: Key,
        /// What.
        value: Value,
        /// The acknowledged offset.
        offset: Option<Offset>,
    },
    /// A record that a poll returned.
    Read {
        /// Where from.
        key: Key,
        /// At which offset.
        offset: Offset,
        /// What.
        value: Value,
    },
    /// A request for the end of a partition.
    Latest {
        /// Of which partition.
        key: Key,
        /// The answer: the first offset not yet visible.
        end: Option<Offset>,
    },
    /// A hash over all records of a partition below an offset, as one replica holds them.
    Digest {
        /// Of which partition.
        key: Key,
        /// At which broker.
        replica: u32,
        /// The first offset that it does not cover.
        end: Offset,
        /// The answer.
        hash: Option<Hash>,
    },
    /// A group's offset, to be stored: the first one not processed.
    Commit {
        /// Of which partition.
        key: Key,
        /// Of which group.
        group: u32,
        /// The first offset not processed.
        offset: Offset,
    },
    /// A request for a group's offset.
    Committed {
        /// Of which partition.
        key: Key,
        /// Of which group.
        group: u32,
        /// The answer; absent also when none was stored.
        offset: Option<Offset>,
    },
    /// A request to delete what lies below an offset. One by retention ends unknown: it takes
    /// place when it does.
    Trim {
        /// Of which partition.
        key: Key,
        /// The first offset to be kept.
        before: Offset,
        /// The answer: the first offset that is kept now.
        start: Option<Offset>,
    },
    /// A request for the first offset kept.
    Earliest {
        /// Of which partition.
        key: Key,
        /// The answer.
        start: Option<Offset>,
    },
    /// A partition whose topic is deleted.
    Delete(Key),
    /// Of the values that leave the same remainder when divided by `keys`, only the latest is kept.
    Compacted {
        /// Of which partition.
        key: Key,
        /// How many keys its records have.
        keys: u32,
        /// One value of so many of a record key is a tombstone: it removes the key, and then itself
        /// may go. 0: none is.
        tombstones: u32,
    },
    /// A partition that an assignment or subscription names.
    Use(Key),
}

impl Action {
    /// The partition concerned.
    #[must_use]
    pub const fn key(&self) -> Key {
        match *self {
            Self::Send { key, .. }
            | Self::Read { key, .. }
            | Self::Latest { key, .. }
            | Self::Digest { key, .. }
            | Self::Commit { key, .. }
            | Self::Committed { key, .. }
            | Self::Trim { key, .. }
            | Self::Earliest { key, .. }
            | Self::Compacted { key, .. }
            | Self::Delete(key)
            | Self::Use(key) => key,
        }
    }
}

/// One entry of a history, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Place in the whole history, nemesis operations included; rises.
    pub index: u64,
    /// Nanoseconds since the start of the run.
    pub time_ns: u64,
    /// Begin or end.
    pub kind: Kind,
    /// Who.
    pub process: Process,
    /// What for.
    pub function: Function,
    /// The steps, in order.
    pub actions: Vec<Action>,
    /// An assignment that starts its partitions again from their first record.
    pub seek_to_beginning: bool,
    /// A poll across which the process's group was rebalanced.
    pub rebalanced: bool,
}

impl Operation {
    /// An entry without the rare flags.
    #[must_use]
    pub const fn new(
        index: u64,
        time_ns: u64,
        kind: Kind,
        process: Process,
        function: Function,
        actions: Vec<Action>,
    ) -> Self {
        Self {
            index,
            time_ns,
            kind,
            process,
            function,
            actions,
            seek_to_beginning: false,
            rebalanced: false,
        }
    }
}

/// One entry of a history, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// See [`Operation::index`].
    pub index: u64,
    /// Nanoseconds since the start of the run.
    pub time_ns: u64,
    /// Begin or end.
    pub kind: Kind,
    /// Who.
    pub process: Process,
    /// What for.
    pub function: Function,
    /// The steps, in order.
    pub actions: &'a [Action],
    /// See [`Operation::seek_to_beginning`].
    pub seek_to_beginning: bool,
    /// See [`Operation::rebalanced`].
    pub rebalanced: bool,
}

/// Why a list of entries is no history. Nothing can be concluded from one that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HistoryError {
    /// Indexes must rise.
    #[error("operation index {index} follows {previous}: indexes must rise")]
    IndexNotRising {
        /// The offending index.
        index: u64,
        /// The one before.
        previous: u64,
    },
    /// A process does one thing at a time.
    #[error("operation {index}: process {process} begins while its last operation is still open")]
    AlreadyOpen {
        /// The offending index.
        index: u64,
        /// Who.
        process: Process,
    },
    /// A completion needs an invocation.
    #[error("operation {index}: process {process} completes what it never began")]
    NothingOpen {
        /// The offending index.
        index: u64,
        /// Who.
        process: Process,
    },
    /// A process whose operation ended unknown must not go on.
    #[error("operation {index}: process {process} goes on after an operation that ended unknown")]
    Retired {
        /// The offending index.
        index: u64,
        /// Who.
        process: Process,
    },
    /// A completion names other records than its invocation.
    #[error("operation {index}: the completion's sends differ from those of its invocation")]
    SendsDiffer {
        /// The offending index.
        index: u64,
    },
    /// More than the dense indexes can number.
    #[error("a history holds at most {} entries", u32::MAX - 1)]
    TooLong,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    index: u64,
    time_ns: u64,
    process: Process,
    first_action: usize,
    actions: u32,
    kind: Kind,
    function: Function,
    seek_to_beginning: bool,
    rebalanced: bool,
}

/// A whole history, in the order in which things happened.
#[derive(Debug, Clone, Default)]
pub struct History {
    entries: Vec<Stored>,
    actions: Vec<Action>,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// When its index does not rise, or the history is full.
    pub fn push(&mut self, operation: &Operation) -> Result<(), HistoryError> {
        if let Some(last) = self.entries.last()
            && operation.index <= last.index
        {
            let previous = last.index;
            return Err(HistoryError::IndexNotRising {
                index: operation.index,
                previous,
            });
        }
        let count = u32::try_from(operation.actions.len()).map_err(|_| HistoryError::TooLong)?;
        if self.entries.len() >= u32::MAX as usize - 1 {
            return Err(HistoryError::TooLong);
        }
        self.entries.push(Stored {
            index: operation.index,
            time_ns: operation.time_ns,
            process: operation.process,
            first_action: self.actions.len(),
            actions: count,
            kind: operation.kind,
            function: operation.function,
            seek_to_beginning: operation.seek_to_beginning,
            rebalanced: operation.rebalanced,
        });
        self.actions.extend_from_slice(&operation.actions);
        Ok(())
    }

    /// The number of entries (invocations and completions).
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at a position, counted from 0 among those kept here.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Entry<'_>> {
        self.entries.get(position).map(|stored| self.borrow(stored))
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.entries.iter().map(|stored| self.borrow(stored))
    }

    /// Every action of every entry, in order.
    pub(crate) fn all_actions(&self) -> &[Action] {
        &self.actions
    }

    fn borrow(&self, stored: &Stored) -> Entry<'_> {
        let end = stored.first_action + stored.actions as usize;
        Entry {
            index: stored.index,
            time_ns: stored.time_ns,
            kind: stored.kind,
            process: stored.process,
            function: stored.function,
            actions: self.actions.get(stored.first_action..end).unwrap_or(&[]),
            seek_to_beginning: stored.seek_to_beginning,
            rebalanced: stored.rebalanced,
        }
    }
}

impl Entry<'_> {
    /// A copy that owns its actions.
    #[must_use]
    pub fn to_operation(&self) -> Operation {
        Operation {
            index: self.index,
            time_ns: self.time_ns,
            kind: self.kind,
            process: self.process,
            function: self.function,
            actions: self.actions.to_vec(),
            seek_to_beginning: self.seek_to_beginning,
            rebalanced: self.rebalanced,
        }
    }
}
