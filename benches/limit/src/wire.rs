//! Commits of one size over TCP: a head of eight bytes (checksum, length), then the bytes; the
//! answer to each is one byte.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// What says that a commit is on all disks.
pub const DONE: u8 = 1;

/// A connection without delays.
pub fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("no node at {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Head and bytes of a commit, as they travel.
pub fn frame(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut frame = crc32c::crc32c(bytes).to_le_bytes().to_vec();
    frame.extend(u32::try_from(bytes.len())?.to_le_bytes());
    frame.extend(bytes);
    Ok(frame)
}

/// Sends commits, a window of them at a time.
pub struct Client {
    stream: TcpStream,
    window: usize,
    frame: Vec<u8>,
    sent: VecDeque<Instant>,
}

impl Client {
    /// Connects to the leader.
    pub fn connect(leader: &str, window: usize, bytes: usize) -> anyhow::Result<Self> {
        let body: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
        Ok(Self {
            stream: connect(leader)?,
            window,
            frame: frame(&body)?,
            sent: VecDeque::new(),
        })
    }
    /// Sends for this long, then waits for what is outstanding; milliseconds of each commit.
    pub fn run(&mut self, span: Duration) -> anyhow::Result<Vec<f64>> {
        let started = Instant::now();
        let mut latencies = Vec::new();
        loop {
            while self.sent.len() < self.window && started.elapsed() < span {
                self.sent.push_back(Instant::now());
                self.stream.write_all(&self.frame)?;
            }
            if self.sent.is_empty() {
                return Ok(latencies);
            }
            let mut answers = [0u8; 64];
            let count = self.stream.read(&mut answers)?;
            anyhow::ensure!(count > 0, "the leader has ended");
            for answer in answers.iter().take(count) {
                anyhow::ensure!(*answer == DONE, "the leader refused a commit");
                let sent = self.sent.pop_front().context("an answer to nothing")?;
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
}
