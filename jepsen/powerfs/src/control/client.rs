//! The typed client of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::protocol::{
    Fault, FaultId, FaultStatus, Flipped, Loss, LossReport, Place, Request, Response, Stats,
};

/// How long to wait between two looks for the socket.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection failed: whether the request was carried out is unknown.
    #[error("the control socket: {0}")]
    Io(#[from] io::Error),
    /// The reply was none of this protocol.
    #[error("the reply cannot be read: {0}")]
    Reply(#[from] serde_json::Error),
    /// The server refused; nothing was done.
    #[error("refused: {0}")]
    Refused(String),
}

/// A connection to the control socket of a mount. Calls block; each is one line and its reply.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: BufReader::new(UnixStream::connect(socket)?),
        })
    }

    /// Connects to a server that may still be starting. The socket is there only once the mount
    /// is, so that this also waits for the mount.
    ///
    /// # Errors
    /// When nobody listens there after `patience`.
    pub fn connect_within(socket: &Path, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::connect(socket) {
                Ok(control) => return Ok(control),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Asks whether the server is there.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn ping(&mut self) -> Result<(), ControlError> {
        self.ask(&Request::Ping {})
    }

    /// Drops what was not synced. The process that uses the mount must have been killed before:
    /// every handle that is still open is dead afterwards (EIO). The mount stays, and shows what
    /// survived.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn power_loss(&mut self, loss: Loss) -> Result<LossReport, ControlError> {
        self.ask(&Request::PowerLoss { loss })
    }

    /// Counts.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn stats(&mut self) -> Result<Stats, ControlError> {
        self.ask(&Request::Stats {})
    }

    /// Sets a fault.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn add_fault(&mut self, fault: Fault) -> Result<FaultId, ControlError> {
        self.ask(&Request::AddFault { fault })
    }

    /// Takes a fault back, and says what it did.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn remove_fault(&mut self, id: FaultId) -> Result<FaultStatus, ControlError> {
        self.ask(&Request::RemoveFault { id })
    }

    /// Takes all faults back, lets stalled syncs finish, and says what each fault did.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn clear_faults(&mut self) -> Result<Vec<FaultStatus>, ControlError> {
        self.ask(&Request::ClearFaults {})
    }

    /// Flips one bit of a file, for good: the next reader sees it, and so does the one after a
    /// power loss.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn flip_bit(&mut self, path: &str, offset: u64, bit: u8) -> Result<(), ControlError> {
        self.ask(&Request::FlipBit {
            path: path.to_owned(),
            offset,
            bit,
        })
    }

    /// Flips one bit of a file that matches a pattern, and says which; [`Self::flip_bit`] takes it
    /// back.
    ///
    /// # Errors
    /// See [`ControlError`]; refused when no file that matches holds anything.
    pub fn rot(&mut self, pattern: &str, place: Place, seed: u64) -> Result<Flipped, ControlError> {
        self.ask(&Request::Rot {
            pattern: pattern.to_owned(),
            place,
            seed,
        })
    }

    /// Unmounts and ends the server.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn shutdown(&mut self) -> Result<(), ControlError> {
        self.ask(&Request::Shutdown {})
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ControlError> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut reply = String::new();
        if self.stream.read_line(&mut reply)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_str(&reply)? {
            Response::Ok(answer) => Ok(answer),
            Response::Error(why) => Err(ControlError::Refused(why)),
        }
    }
}
