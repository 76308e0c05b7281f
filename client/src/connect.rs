//! How connections are made: TCP by default, anything else through a connector; one pool of
//! channels per broker and purpose.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt, service_fn};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type BoxIo = Box<dyn Io>;

/// Opens connections. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Connector {
    dial: Arc<dyn Fn(Uri) -> BoxFuture<'static, Result<BoxIo, BoxError>> + Send + Sync>,
}

impl Connector {
    /// TCP without Nagle's delay.
    pub(crate) fn tcp() -> Self {
        Self::new(service_fn(|uri: Uri| async move {
            let host = uri.host().ok_or_else(|| io::Error::other("no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = uri
                .port_u16()
                .unwrap_or(crate::connection_string::DEFAULT_PORT);
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        }))
    }

    pub(crate) fn new<S>(service: S) -> Self
    where
        S: Service<Uri> + Clone + Send + Sync + 'static,
        S::Response: Io + 'static,
        S::Error: Into<BoxError> + 'static,
        S::Future: Send + 'static,
    {
        Self {
            dial: Arc::new(move |uri| {
                let service = service.clone();
                Box::pin(async move {
                    let stream = service.oneshot(uri).await.map_err(Into::into)?;
                    Ok(Box::new(stream) as BoxIo)
                })
            }),
        }
    }
}

/// What a channel is for. Each purpose has its own connection, so that bulk data never stands in
/// the way of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Control,
    Produce,
    Fetch,
    /// Heartbeats wait at the broker, and must not wait behind anything.
    Group,
}

/// Timeouts of connections.
#[derive(Debug, Clone)]
pub(crate) struct PoolConfig {
    pub connect_timeout: Duration,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    pub client_id: String,
}

/// Channels by address and purpose; each connects when first used and again when it broke.
pub(crate) struct Pool {
    connector: Connector,
    config: PoolConfig,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
}

/// A connection's receive window: fetched data is bounded by credit, not by HTTP/2.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

impl Pool {
    pub(crate) fn new(connector: Connector, config: PoolConfig) -> Self {
        Self {
            connector,
            config,
            channels: Mutex::default(),
        }
    }

    /// The channel to `address` (`host:port`).
    pub(crate) fn channel(&self, address: &str, purpose: Purpose) -> Result<Channel, String> {
        let key = (address.to_owned(), purpose);
        if let Some(channel) = self.channels.lock().get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.open(address)?;
        self.channels.lock().insert(key, channel.clone());
        Ok(channel)
    }

    /// Forgets a channel that hangs, so that the next use dials afresh.
    pub(crate) fn forget(&self, address: &str, purpose: Purpose) {
        self.channels.lock().remove(&(address.to_owned(), purpose));
    }

    fn open(&self, address: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .and_then(|endpoint| endpoint.user_agent(self.config.client_id.clone()))
            .map_err(|error| format!("{address:?} is not an address: {error}"))?
            .connect_timeout(self.config.connect_timeout)
            .http2_keep_alive_interval(self.config.keep_alive_interval)
            .keep_alive_timeout(self.config.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES);
        let dial = Arc::clone(&self.connector.dial);
        Ok(
            endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
                let connecting = dial(uri);
                async move { connecting.await.map(TokioIo::new) }
            })),
        )
    }
}

/// A boxed future that is `Send`, for state kept across a `select!`.
pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;
