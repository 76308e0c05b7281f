//! gRPC channels and servers over the network that the broker was given.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use highwater_env::{Listener, Net};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

use super::connections::Connection;

/// How long a connection attempt between brokers may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A peer that does not answer a ping within this long after it was due is gone. Streams have no
/// other deadline: a snapshot that is being pulled would wait for a dead peer for ever.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(4);

/// A channel to `address` (host:port) that connects when it is first used and again when needed.
///
/// # Errors
/// When `address` is no host and port.
pub fn lazy_channel<N: Net>(net: &N, address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .tcp_nodelay(true);
    let net = net.clone();
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let net = net.clone();
            async move {
                let address = uri.authority().map_or("", |a| a.as_str()).to_owned();
                Ok::<_, io::Error>(TokioIo::new(net.connect(&address).await?))
            }
        })),
    )
}

/// A connection that was accepted, in the shape that the gRPC server wants.
#[derive(Debug)]
pub struct Accepted<S>(S, Connection);

impl<S> Connected for Accepted<S> {
    type ConnectInfo = Connection;
    fn connect_info(&self) -> Connection {
        self.1.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections of a listener, one behind the other, for ever.
pub fn incoming<L>(listener: L) -> impl Stream<Item = io::Result<Accepted<L::Stream>>> + Send
where
    L: Listener,
    L::Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    futures_util::stream::unfold(listener, |mut listener| async move {
        let accepted = match listener.accept().await {
            Ok((stream, peer)) => Ok(Accepted(stream, Connection::from(peer))),
            Err(error) => {
                // Out of descriptors, typically: accepting at full speed would only burn the CPU.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(error)
            }
        };
        Some((accepted, listener))
    })
}
