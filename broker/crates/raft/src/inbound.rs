//! What a lane hands to a group: requests of its peers.

use futures_util::future::BoxFuture;
use highwater_proto::NodeId;

use crate::codec::SnapshotBody;
use crate::types::{
    AppendRequest, AppendResponse, SnapshotResponse, TransferRequest, TransferResponse,
    VoteRequest, VoteResponse,
};

/// An answer, or why there is none.
pub(crate) type Answer<T> = BoxFuture<'static, Result<T, String>>;

/// A started group. Every call returns at once; the work is in the future.
pub(crate) trait Inbound: Send + Sync + 'static {
    /// Appends are taken in the order in which their futures are first polled. `everywhere`: every
    /// member has the entries below it.
    fn append(&self, request: AppendRequest, everywhere: u64) -> Answer<AppendResponse>;
    /// A coalesced heartbeat says that a broker leads the group in a term; whether that counts here.
    fn is_led_by(&self, from: NodeId, term: u64) -> bool;
    fn vote(&self, request: VoteRequest) -> Answer<VoteResponse>;
    fn pre_vote(&self, request: VoteRequest) -> Answer<VoteResponse>;
    fn transfer(&self, request: TransferRequest) -> Answer<TransferResponse>;
    /// Dropping the future gives the installation up.
    fn snapshot(&self, from: NodeId, body: SnapshotBody) -> Answer<SnapshotResponse>;
}
