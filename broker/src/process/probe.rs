//! Asks a broker's admin server whether it is ready.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One probe's deadline: a paused broker accepts connections and never answers.
const DEADLINE: Duration = Duration::from_secs(1);

/// The most that is read of an answer.
const MAX_ANSWER: u64 = 64 << 10;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Clients can be served.
    Ready,
    /// Not yet; the broker's own explanation, which may be empty.
    NotReady(String),
}

/// Asks once. Cancellation-safe.
pub async fn readiness(admin: SocketAddr) -> Readiness {
    match timeout(DEADLINE, ask(admin)).await {
        Ok(Ok(readiness)) => readiness,
        Ok(Err(error)) => Readiness::NotReady(error.to_string()),
        Err(_) => Readiness::NotReady(format!("{admin} does not answer")),
    }
}

async fn ask(admin: SocketAddr) -> io::Result<Readiness> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(Readiness::Ready);
    }
    let lines: Vec<&str> = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Ok(Readiness::NotReady(lines.join("; ")))
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
