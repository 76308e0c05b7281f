//! What a replicated state machine must offer. Everything that is replicated goes through here.

use std::future::Future;
use std::io;

use bytes::Bytes;
use highwater_proto::{NodeId, Payload};

/// An entry's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counts the entries of the group, from 0.
    pub index: u64,
    /// Counts the group's elections; at most one leader wrote in each term.
    pub term: u64,
}

/// A checkpoint as it was made durable, and as it travels to a replica that is too far behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// What this crate needs to know of it (last entry, members); opaque to the state machine,
    /// which stores it beside its manifest.
    pub raft_meta: Bytes,
    /// What the state machine needs to know of it.
    pub manifest: Bytes,
}

/// A deterministic state machine with durable checkpoints.
///
/// Calls come from one task, one after the other, in the order of the log.
pub trait StateMachine: Send + Sync + 'static {
    /// A frozen state on its way to the disk.
    type Frozen: Frozen;
    /// A checkpoint of another replica of which all is here, and which is to replace the state.
    type Prepared: Send;

    /// Applies a committed command and says what came of it. A command may be applied again after
    /// a restart, from the last durable checkpoint on, in the same order.
    fn apply(&mut self, at: Position, command: Payload) -> impl Future<Output = Bytes> + Send;
    /// A new leader wrote its first entry.
    fn new_term(&mut self, at: Position);
    /// Whether the manifest of the last frozen state names what was replaced since, although no entry was
    /// applied: then it is worth another checkpoint.
    fn has_moved(&self) -> bool {
        false
    }
    /// Takes hold of the state as of `at`; cheap, no I/O.
    fn freeze(&mut self, at: Position) -> Self::Frozen;
    /// Reads the last durable checkpoint at start; afterwards the state equals it. `None`: there
    /// is none, the state is empty.
    fn load(&mut self) -> impl Future<Output = io::Result<Option<StoredCheckpoint>>> + Send;
    /// Pulls what is missing of a checkpoint of `from`.
    ///
    /// The future is dropped when the sender goes away or the deadline passes, and the state machine goes
    /// on from where it is: the old state must stay whole, on the disk as well, and nothing that was begun
    /// may replace its checkpoint later.
    fn prepare_install(
        &mut self,
        from: NodeId,
        checkpoint: StoredCheckpoint,
    ) -> impl Future<Output = io::Result<Self::Prepared>> + Send;
    /// Makes it durable (together with `checkpoint.raft_meta`, as [`Frozen::persist`] does), then replaces
    /// the state. It is not dropped, and nothing comes in between.
    ///
    /// # Errors
    /// The old state is whole then, or the process stops and nothing more is applied here.
    fn finish_install(
        &mut self,
        prepared: Self::Prepared,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// A frozen state that can be made durable while the state machine goes on.
pub trait Frozen: Send + 'static {
    /// Makes the state and `raft_meta` durable and answers with the manifest. When it fails, the
    /// previous checkpoint must still be whole. At most one persist or install of a group runs at
    /// a time.
    fn persist(self, raft_meta: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send;
}
