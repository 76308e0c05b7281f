//! A small HTTP client: one connection, kept, one request at a time. It never repeats a request by
//! itself: whether a failed one may be repeated is for the caller to know.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// A request has no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// It was certainly not sent.
    #[error("{address} cannot be reached: {reason}")]
    NotSent {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// It may have been carried out.
    #[error("{address} did not answer: {reason}")]
    NoAnswer {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// One connection to one server.
#[derive(Debug)]
pub struct HttpClient {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl HttpClient {
    /// A client that connects when it is first used.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Sends a GET. Dropped half-way, the connection is given up.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn get(&mut self, path: &str) -> Result<Answer, HttpError> {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    /// Sends a POST with a JSON body. Dropped half-way, the connection is given up.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, path, headers, body).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        let address = self.address;
        let not_sent = |reason: String| HttpError::NotSent { address, reason };
        let no_answer = |reason: String| HttpError::NoAnswer { address, reason };
        // Taken out: whatever goes wrong, a connection in doubt is not used again.
        let mut connection = match self.connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => connect(address).await.map_err(not_sent)?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| not_sent(error.to_string()))?;
        connection
            .ready()
            .await
            .map_err(|error| not_sent(error.to_string()))?;
        let sent = connection.send_request(request).await;
        let answer = sent.map_err(|error| no_answer(error.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body
            .map_err(|error| no_answer(error.to_string()))?
            .to_bytes();
        self.connection = Some(connection);
        Ok(Answer { status, body })
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its owner is the sender: the connection ends when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "a connection has ended");
        }
    });
    Ok(sender)
}
