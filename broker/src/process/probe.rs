//! Asks a broker's admin server whether it is ready.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::observe::REPLICATION_CHECK;

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

/// Asks once whether clients can be served. Cancellation-safe.
pub async fn readiness(admin: SocketAddr) -> Readiness {
    match answer(admin, "/readyz").await {
        Ok((200, _)) => Readiness::Ready,
        Ok((_, body)) => Readiness::NotReady(one_line(&body)),
        Err(reason) => Readiness::NotReady(reason),
    }
}

/// Asks once whether the broker is ready and its replicas hold all that is committed.
/// Cancellation-safe.
pub async fn caught_up(admin: SocketAddr) -> Readiness {
    let behind =
        |line: &&str| !line.starts_with("ok ") && line.contains(&format!(" {REPLICATION_CHECK}: "));
    match readiness(admin).await {
        Readiness::Ready => {}
        not_ready => return not_ready,
    }
    match answer(admin, "/healthz?verbose").await {
        Ok((_, body)) => match body.lines().find(behind) {
            Some(line) => Readiness::NotReady(line.to_owned()),
            None => Readiness::Ready,
        },
        Err(reason) => Readiness::NotReady(reason),
    }
}

/// Status code and body, or why there are none.
async fn answer(admin: SocketAddr, path: &str) -> Result<(u16, String), String> {
    match timeout(DEADLINE, ask(admin, path)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{admin} does not answer")),
    }
}

async fn ask(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}

fn one_line(body: &str) -> String {
    let lines: Vec<&str> = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
