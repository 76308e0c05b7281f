//! Asks a broker's admin server whether it is ready and has caught up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One question's deadline: a paused broker accepts connections and never answers.
const DEADLINE: Duration = Duration::from_secs(1);

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// Nothing when clients can be served and the broker's replicas hold all that is committed;
/// otherwise what is missing. Cancellation-safe.
pub async fn caught_up(admin: SocketAddr) -> Result<(), String> {
    match answer(admin, "/readyz").await? {
        (200, _) => {}
        (_, body) => return Err(one_line(&body)),
    }
    let (_, body) = answer(admin, "/healthz?verbose").await?;
    let behind = |line: &&str| !line.starts_with("ok ") && line.contains(" replication: ");
    body.lines()
        .find(behind)
        .map_or(Ok(()), |line| Err(line.to_owned()))
}

/// What a broker finds wrong with its own wall clock; nothing when nothing is. Cancellation-safe.
pub async fn clock_trouble(admin: SocketAddr) -> Result<Option<String>, String> {
    let (_, body) = answer(admin, "/healthz?verbose").await?;
    let wrong = |line: &&str| !line.starts_with("ok ") && line.contains(" clock: ");
    Ok(body.lines().find(wrong).map(str::to_owned))
}

/// All metrics, in the text format of Prometheus. Cancellation-safe.
pub async fn metrics(admin: SocketAddr) -> Result<String, String> {
    match answer(admin, "/metrics").await? {
        (200, body) => Ok(body),
        (status, _) => Err(format!("status {status}")),
    }
}

/// A number among metrics; a counter that never counted is not there.
pub(super) fn number(metrics: &str, name: &str) -> Option<u64> {
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
        rest.trim().parse().ok()
    };
    metrics.lines().find_map(of_name)
}

async fn answer(admin: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = match timeout(DEADLINE, ask).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("{admin} does not answer")),
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}

fn one_line(body: &str) -> String {
    let lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_off_the_metrics() {
        let text = "# TYPE highwater_damaged_ranges gauge\nhighwater_damaged_ranges 3\n";
        assert_eq!(number(text, "highwater_damaged_ranges"), Some(3));
        assert_eq!(
            number(
                "highwater_damaged_ranges_total 3\n",
                "highwater_damaged_ranges"
            ),
            None
        );
    }
}
