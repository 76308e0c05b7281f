//! A node: reads commits, checks them, passes them on, writes and syncs them, and answers when its
//! followers have answered too.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::wire::{DONE, connect};

/// A recycled file has this size and was written through once.
const FILE_BYTES: u64 = 128 << 20;
/// A growing file is begun anew beyond this.
const GROWN_BYTES: u64 = 1 << 30;
const HEAD: usize = 8;

/// What a node is.
#[derive(Debug, Args)]
pub struct Options {
    /// host:port
    #[arg(long)]
    listen: String,
    /// Bytes of each commit
    #[arg(long)]
    bytes: usize,
    /// The file
    #[arg(long)]
    file: PathBuf,
    /// Lets the file grow
    #[arg(long)]
    growing: bool,
    /// host:port of a follower; may be repeated
    #[arg(long)]
    follower: Vec<String>,
}

/// Serves one connection until it ends.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut disk = Disk::open(options)?;
    let mut followers = Vec::new();
    for address in &options.follower {
        followers.push(connect(address)?);
    }
    let listener = TcpListener::bind(&options.listen)?;
    let mut out = std::io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut readers = Vec::new();
    for follower in &followers {
        readers.push(follower.try_clone()?);
    }
    // Beyond the window nobody gets, so that the channel never fills.
    let (synced, news) = std::sync::mpsc::sync_channel::<()>(1024);
    let replies = stream.try_clone()?;
    let answering = std::thread::spawn(move || answer(&news, readers, replies));
    let mut frame = vec![0u8; HEAD + options.bytes];
    while read_frame(&mut stream, &mut frame)? {
        for follower in &mut followers {
            follower.write_all(&frame)?;
        }
        disk.write(frame.get(HEAD..).context("a frame has a head")?)?;
        if synced.send(()).is_err() {
            break;
        }
    }
    drop(synced);
    match answering.join() {
        Ok(outcome) => outcome,
        Err(_) => bail!("the answering thread panicked"),
    }
}

/// Answers each commit when this node and all followers have it on disk, so that this node may
/// write the next one meanwhile.
fn answer(
    synced: &Receiver<()>,
    mut followers: Vec<TcpStream>,
    mut replies: TcpStream,
) -> anyhow::Result<()> {
    while synced.recv().is_ok() {
        for follower in &mut followers {
            let mut done = [0u8; 1];
            follower.read_exact(&mut done)?;
            if done != [DONE] {
                bail!("a follower refused a commit");
            }
        }
        replies.write_all(&[DONE])?;
    }
    Ok(())
}

/// False at the end of the stream.
fn read_frame(stream: &mut TcpStream, frame: &mut [u8]) -> anyhow::Result<bool> {
    match stream.read_exact(frame) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let (head, body) = frame.split_at_checked(HEAD).context("a frame has a head")?;
    let expected = head.first_chunk::<4>().context("a head has a checksum")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*expected) {
        bail!("a commit is damaged");
    }
    Ok(true)
}

struct Disk {
    file: File,
    at: u64,
    limit: u64,
    growing: bool,
}

impl Disk {
    fn open(options: &Options) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&options.file)?;
        if !options.growing {
            let zeros = vec![0u8; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
        }
        file.sync_all()?;
        Ok(Self {
            file,
            at: 0,
            limit: if options.growing {
                GROWN_BYTES
            } else {
                FILE_BYTES
            },
            growing: options.growing,
        })
    }
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let size = bytes.len() as u64;
        if self.at + size > self.limit {
            if self.growing {
                self.file.set_len(0)?;
            }
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.file.sync_data()?;
        self.at += size;
        Ok(())
    }
}
