//! Producer ids: taken from the metadata group in blocks, handed out one by one. An id that was
//! in a block when the broker died is never used: ids are plentiful, reuse would be a duplicate.

use std::ops::Range;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply};
use highwater_proto::ProducerId;
use tokio::sync::Mutex;

use super::proposer::{MetadataError, Proposer};

/// Ids taken at once.
const BLOCK: u32 = 1000;
const DEADLINE: Duration = Duration::from_secs(10);

/// Hands out producer ids.
#[derive(Debug, Default)]
pub struct ProducerIds(Mutex<Range<u64>>);

impl ProducerIds {
    /// An id that nobody else has or will have. Cancellation-safe: at worst ids are skipped.
    ///
    /// # Errors
    /// When the metadata group cannot be asked in time.
    pub async fn next<E: Env>(&self, metadata: &Proposer<E>) -> Result<ProducerId, MetadataError> {
        let mut block = self.0.lock().await;
        if let Some(id) = block.next() {
            return Ok(ProducerId(id));
        }
        let command = MetadataCommand::AllocateProducerIds { count: BLOCK };
        match metadata.propose(&command, DEADLINE).await? {
            MetadataReply::ProducerIds { first, count } => {
                *block = first.0..first.0 + u64::from(count);
                let id = block.next();
                id.map(ProducerId)
                    .ok_or_else(|| MetadataError::Unknown("empty block".to_owned()))
            }
            other => Err(MetadataError::Unknown(format!(
                "unexpected reply {other:?}"
            ))),
        }
    }
}
