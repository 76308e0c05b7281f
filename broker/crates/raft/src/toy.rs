//! A state machine for the tests: remembers every command, and fails when told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_env::{OsDisk, read_if_exists, replace_durably};
use highwater_proto::{NodeId, Payload};
use parking_lot::Mutex;

use crate::{Frozen, Position, StateMachine, StoredCheckpoint};

/// What a toy state machine knows; shared with the test that looks at it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ToyState {
    pub applied: Vec<Bytes>,
    pub terms: u64,
    pub installs: u64,
    pub last: Option<u64>,
    /// The next so many checkpoints fail to be made or installed.
    pub failures: u64,
    /// Milliseconds that a checkpoint takes to be stored.
    pub store_ms: u64,
    /// Checkpoints that are being stored now.
    pub storing: u64,
    /// What the last checkpoint names lies elsewhere now.
    pub moved: bool,
    /// Checkpoints that were made.
    pub checkpoints: u64,
}

impl ToyState {
    fn fails(&mut self) -> io::Result<()> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(io::Error::other("as the test wants it"))
    }
}

/// Remembers every command, in a file when checkpointed.
pub(crate) struct Toy {
    path: PathBuf,
    pub(crate) state: Arc<Mutex<ToyState>>,
}

pub(crate) struct ToyFrozen {
    path: PathBuf,
    state: Bytes,
    shared: Arc<Mutex<ToyState>>,
}

fn encode(state: &ToyState) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u64(state.terms);
    for command in &state.applied {
        bytes.put_u32(u32::try_from(command.len()).unwrap());
        bytes.put_slice(command);
    }
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> ToyState {
    let mut state = ToyState {
        terms: bytes.get_u64(),
        ..ToyState::default()
    };
    while !bytes.is_empty() {
        let len = bytes.get_u32() as usize;
        state.applied.push(bytes.split_to(len));
    }
    state
}

fn store(path: &Path, raft_meta: &Bytes, manifest: &Bytes) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::try_from(raft_meta.len()).unwrap());
    bytes.put_slice(raft_meta);
    bytes.put_slice(manifest);
    replace_durably(&OsDisk, path, &bytes)
}

/// How long it takes.
fn begin_to_store(state: &Mutex<ToyState>) -> Duration {
    let mut state = state.lock();
    state.storing += 1;
    Duration::from_millis(state.store_ms)
}

/// A checkpoint that was stored.
pub(crate) fn read_stored(path: &Path) -> io::Result<Option<StoredCheckpoint>> {
    let Some(bytes) = read_if_exists(&OsDisk, path)? else {
        return Ok(None);
    };
    let mut bytes = Bytes::from(bytes);
    let len = bytes.get_u32() as usize;
    let raft_meta = bytes.split_to(len);
    let manifest = bytes;
    Ok(Some(StoredCheckpoint {
        raft_meta,
        manifest,
    }))
}

impl Toy {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join("checkpoint"),
            state: Arc::default(),
        }
    }
}

impl StateMachine for Toy {
    type Frozen = ToyFrozen;
    type Prepared = StoredCheckpoint;

    async fn apply(&mut self, at: Position, command: Payload) -> Bytes {
        let mut state = self.state.lock();
        assert!(
            state.last.is_none_or(|last| last < at.index),
            "applied twice"
        );
        state.last = Some(at.index);
        state.applied.push(command.to_contiguous());
        Bytes::copy_from_slice(&(state.applied.len() as u64).to_be_bytes())
    }
    fn new_term(&mut self, _: Position) {
        self.state.lock().terms += 1;
    }
    fn has_moved(&self) -> bool {
        self.state.lock().moved
    }
    fn freeze(&mut self, _: Position) -> ToyFrozen {
        self.state.lock().moved = false;
        let state = encode(&self.state.lock());
        ToyFrozen {
            path: self.path.clone(),
            state,
            shared: Arc::clone(&self.state),
        }
    }
    async fn load(&mut self) -> io::Result<Option<StoredCheckpoint>> {
        let stored = read_stored(&self.path)?;
        if let Some(stored) = &stored {
            *self.state.lock() = decode(stored.manifest.clone());
        }
        Ok(stored)
    }
    async fn prepare_install(
        &mut self,
        _: NodeId,
        checkpoint: StoredCheckpoint,
    ) -> io::Result<StoredCheckpoint> {
        Ok(checkpoint)
    }
    async fn finish_install(&mut self, prepared: StoredCheckpoint) -> io::Result<()> {
        self.state.lock().fails()?;
        let taking = begin_to_store(&self.state);
        tokio::time::sleep(taking).await;
        store(&self.path, &prepared.raft_meta, &prepared.manifest)?;
        let mut state = self.state.lock();
        let installs = state.installs + 1;
        *state = ToyState {
            installs,
            last: state.last,
            ..decode(prepared.manifest)
        };
        Ok(())
    }
}

impl Frozen for ToyFrozen {
    async fn persist(self, raft_meta: Bytes) -> io::Result<Bytes> {
        self.shared.lock().fails()?;
        let taking = begin_to_store(&self.shared);
        tokio::time::sleep(taking).await;
        let stored = store(&self.path, &raft_meta, &self.state);
        let mut state = self.shared.lock();
        state.storing -= 1;
        stored?;
        state.checkpoints += 1;
        Ok(self.state)
    }
}
