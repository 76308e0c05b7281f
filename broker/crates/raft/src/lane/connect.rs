//! Opens a lane: a connection of its own through the broker's network, and the one call on it.

use std::time::Duration;

use highwater_env::Net;
use highwater_proto::internal::raft_client::RaftClient;
use highwater_proto::internal::{RaftRequest, RaftResponse};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Streaming};

use super::{CLOCK, CLUSTER, INCARNATION, LaneKind, MAX_MESSAGE_BYTES, NODE};
use crate::config::Caller;

/// Connecting and opening the call take no longer than this.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Requests between the lane and the connection.
const OUTGOING: usize = 16;
/// HTTP/2 windows: large enough that a pipeline of appends never waits for a window update.
const WINDOW_BYTES: u32 = 32 << 20;

/// An open lane.
pub(super) struct Connection {
    pub(super) requests: mpsc::Sender<RaftRequest>,
    pub(super) responses: Streaming<RaftResponse>,
    /// The peer's data directory; none from a release that does not say.
    pub(super) incarnation: Option<String>,
    /// The peer's wall clock, ms since the Unix epoch; none from a release that does not say.
    pub(super) clock_ms: Option<i64>,
}

/// Connects to `address` and opens the lane. Cancellation-safe.
pub(super) async fn open<N: Net>(
    net: &N,
    address: &str,
    kind: LaneKind,
    caller: &Caller,
) -> Result<Connection, String> {
    let opened = tokio::time::timeout(CONNECT_DEADLINE, attempt(net, address, kind, caller)).await;
    opened.unwrap_or_else(|_| Err(format!("no connection within {CONNECT_DEADLINE:?}")))
}

async fn attempt<N: Net>(
    net: &N,
    address: &str,
    kind: LaneKind,
    caller: &Caller,
) -> Result<Connection, String> {
    let channel = channel(net.clone(), address, kind).await?;
    let mut client = RaftClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (requests, outgoing) = mpsc::channel(OUTGOING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    let metadata = request.metadata_mut();
    metadata.insert(CLUSTER, ascii(&caller.cluster)?);
    metadata.insert(NODE, caller.node.0.into());
    metadata.insert(INCARNATION, ascii(&caller.incarnation)?);
    let response = client
        .lane(request)
        .await
        .map_err(|status| status.message().to_owned())?;
    let said = |key: &str| response.metadata().get(key)?.to_str().ok();
    let clock_ms = said(CLOCK).and_then(|ms| ms.parse().ok());
    let incarnation = said(INCARNATION).map(str::to_owned);
    Ok(Connection {
        requests,
        incarnation,
        clock_ms,
        responses: response.into_inner(),
    })
}

fn ascii(text: &str) -> Result<MetadataValue<Ascii>, String> {
    text.parse()
        .map_err(|_| format!("{text:?} cannot be sent as metadata"))
}

async fn channel<N: Net>(net: N, address: &str, kind: LaneKind) -> Result<Channel, String> {
    let (every, patience) = kind.keep_alive();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is not an address: {error}"))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(every)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true);
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (net, address) = (net.clone(), address.clone());
        async move { net.connect(&address).await.map(TokioIo::new) }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| describe(&error))
}

/// The error with its causes: tonic's own text says only "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
