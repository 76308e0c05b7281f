//! The metadata group's state machine: commands in, images out.
//!
//! Its checkpoint is the whole image in one file, so a replica that is too far behind needs nothing
//! but the manifest itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Env, Workers};
use highwater_metadata::{Image, MetadataCommand};
use highwater_proto::{NodeId, Payload};
use highwater_raft::{Frozen, Position, StateMachine, StoredCheckpoint};
use highwater_segment::Checkpoint;

use super::cluster::Cluster;
use crate::node::stop_if_sync_failed;
use crate::runtime::{blocking, unreadable};

/// Applies metadata commands and publishes the image after each.
pub struct MetadataMachine<E: Env> {
    file: CheckpointFile<E>,
    image: Arc<Image>,
    cluster: Arc<Cluster>,
}

/// Where the checkpoint lies.
#[derive(Clone)]
struct CheckpointFile<E: Env> {
    env: E,
    path: PathBuf,
}

impl<E: Env> MetadataMachine<E> {
    /// A machine with an empty image that checkpoints to `path`.
    #[must_use]
    pub fn new(env: E, path: PathBuf, cluster: Arc<Cluster>) -> Self {
        Self {
            file: CheckpointFile { env, path },
            image: Arc::default(),
            cluster,
        }
    }
    fn replace(&mut self, image: Image) {
        self.image = Arc::new(image);
        self.cluster.publish(Arc::clone(&self.image));
    }
}

impl<E: Env> CheckpointFile<E> {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let file = self.clone();
        match self.env.workers() {
            Workers::Tasks => call(&file),
            Workers::Threads => blocking(move || call(&file)).await,
        }
    }
    async fn write(&self, raft_meta: Bytes, image: Bytes) -> io::Result<()> {
        let checkpoint = Checkpoint {
            raft_meta,
            state: image,
            partitions: Vec::new(),
        };
        let written = self
            .call(move |file| checkpoint.write(file.env.disk(), &file.path))
            .await;
        stop_if_sync_failed(written)
    }
    async fn read(&self) -> io::Result<Option<Checkpoint>> {
        let read = self
            .call(|file| Checkpoint::read(file.env.disk(), &file.path))
            .await;
        read.map_err(unreadable)
    }
    /// Makes durable what was read, before the log is cut behind it: a process that died after the
    /// rename may have left it in the page cache alone.
    async fn settle(&self) -> io::Result<()> {
        let settled = self
            .call(|file| highwater_env::settle(file.env.disk(), &file.path))
            .await;
        stop_if_sync_failed(settled)
    }
}

/// An image on its way to the disk.
pub struct FrozenImage<E: Env> {
    file: CheckpointFile<E>,
    image: Arc<Image>,
}

impl<E: Env> Frozen for FrozenImage<E> {
    async fn persist(self, raft_meta: Bytes) -> io::Result<Bytes> {
        let image = self.image.encode_snapshot();
        self.file.write(raft_meta, image.clone()).await?;
        Ok(image)
    }
}

impl<E: Env> StateMachine for MetadataMachine<E> {
    type Frozen = FrozenImage<E>;
    type Prepared = (Image, StoredCheckpoint);

    async fn apply(&mut self, at: Position, command: Payload) -> Bytes {
        let reply = match MetadataCommand::decode(&command.to_contiguous()) {
            Ok(command) => {
                let mut image = Image::clone(&self.image);
                let reply = image.apply(&command);
                self.replace(image);
                reply
            }
            // Only commands that decode are proposed, so a newer release wrote it: replicas that
            // run that release change their image, and this one must not go on without.
            Err(error) => crate::node::stop_process(&format!(
                "entry {} of the metadata log: {error}; run the release that wrote it",
                at.index
            )),
        };
        reply.encode()
    }

    fn new_term(&mut self, _at: Position) {}

    fn freeze(&mut self, _at: Position) -> FrozenImage<E> {
        FrozenImage {
            file: self.file.clone(),
            image: Arc::clone(&self.image),
        }
    }

    async fn load(&mut self) -> io::Result<Option<StoredCheckpoint>> {
        let Some(Checkpoint {
            raft_meta, state, ..
        }) = self.file.read().await?
        else {
            return Ok(None);
        };
        let image = Image::decode_snapshot(&state).map_err(io::Error::other)?;
        self.file.settle().await?;
        self.replace(image);
        Ok(Some(StoredCheckpoint {
            raft_meta,
            manifest: state,
        }))
    }

    async fn prepare_install(
        &mut self,
        _from: NodeId,
        stored: StoredCheckpoint,
    ) -> io::Result<(Image, StoredCheckpoint)> {
        let image = Image::decode_snapshot(&stored.manifest).map_err(io::Error::other)?;
        Ok((image, stored))
    }

    async fn finish_install(
        &mut self,
        (image, stored): (Image, StoredCheckpoint),
    ) -> io::Result<()> {
        self.file.write(stored.raft_meta, stored.manifest).await?;
        self.replace(image);
        Ok(())
    }
}
