//! The server of the control socket: a thread that accepts, and one per connection.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde_json::Value;

use super::protocol::{Request, Response};
use crate::fs::Disk;

/// A condition that comes once: somebody wants the mount to end.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    pub(crate) fn ask(&self) {
        *self.asked.lock() = true;
        self.changed.notify_all();
    }
    pub(crate) fn wait(&self) {
        let mut asked = self.asked.lock();
        self.changed.wait_while(&mut asked, |asked| !*asked);
    }
}

/// What the threads share.
struct Shared {
    disk: Arc<Disk>,
    ending: Arc<Ending>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    closed: bool,
    next: u64,
    open: HashMap<u64, UnixStream>,
    threads: HashMap<u64, JoinHandle<()>>,
}

/// Listens until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    socket: PathBuf,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `socket`. One that is there but leads to nobody is replaced.
    ///
    /// # Errors
    /// When somebody listens there already, and those of the file system.
    pub(crate) fn start(socket: &Path, disk: Arc<Disk>, ending: Arc<Ending>) -> io::Result<Self> {
        if UnixStream::connect(socket).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            disk,
            ending,
            connections: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let accepting = Builder::new()
            .name("powerfs-control".to_owned())
            .spawn(move || accept(&listener, &theirs))?;
        Ok(Self {
            shared,
            socket: socket.to_owned(),
            accepting: Some(accepting),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.connections.lock().closed = true;
        // Wakes the thread that accepts. If nobody can connect, nobody accepts either.
        drop(UnixStream::connect(&self.socket));
        if let Some(thread) = self.accepting.take() {
            drop(thread.join());
        }
        let (open, threads) = {
            let mut connections = self.shared.connections.lock();
            (
                std::mem::take(&mut connections.open),
                std::mem::take(&mut connections.threads),
            )
        };
        for stream in open.values() {
            // The request under way is answered; an end that is gone already needs no closing.
            drop(stream.shutdown(std::net::Shutdown::Read));
        }
        for thread in threads.into_values() {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let mut connections = shared.connections.lock();
        if connections.closed {
            return;
        }
        // A connection that failed before it was accepted concerns its own end alone.
        let Ok(stream) = stream else { continue };
        let Ok(ours) = stream.try_clone() else {
            continue;
        };
        connections
            .threads
            .retain(|_, thread| !thread.is_finished());
        connections.next += 1;
        let number = connections.next;
        let theirs = Arc::clone(shared);
        let thread = Builder::new()
            .name("powerfs-control".to_owned())
            .spawn(move || {
                // The other end sees that the connection ended; that is all there is to say.
                drop(converse(&stream, &theirs));
                theirs.connections.lock().open.remove(&number);
            });
        if let Ok(thread) = thread {
            connections.open.insert(number, ours);
            connections.threads.insert(number, thread);
        }
    }
}

fn converse(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let (reply, ends) = match serde_json::from_str(&line?) {
            Ok(Request::Shutdown {}) => (Response::Ok(Value::Null), true),
            Ok(request) => (answer(&shared.disk, request), false),
            Err(error) => (Response::Error(format!("no request: {error}")), false),
        };
        let mut reply = serde_json::to_string(&reply)?;
        reply.push('\n');
        writer.write_all(reply.as_bytes())?;
        if ends {
            shared.ending.ask();
        }
    }
    Ok(())
}

fn answer(disk: &Disk, request: Request) -> Response<Value> {
    match request {
        Request::Ping {} | Request::Shutdown {} => Response::Ok(Value::Null),
        Request::PowerLoss { loss } => outcome(disk.power_loss(loss)),
        Request::Stats {} => value(disk.stats()),
        Request::AddFault { fault } => value(disk.add_fault(fault)),
        Request::RemoveFault { id } => match disk.remove_fault(id) {
            Some(status) => value(status),
            None => Response::Error(format!("there is no fault {}", id.0)),
        },
        Request::ClearFaults {} => value(disk.clear_faults()),
        Request::FlipBit { path, offset, bit } => outcome(disk.flip_bit(&path, offset, bit)),
        Request::Rot {
            pattern,
            place,
            seed,
        } => outcome(disk.rot(&pattern, place, seed)),
    }
}

fn outcome<T: Serialize>(outcome: io::Result<T>) -> Response<Value> {
    match outcome {
        Ok(answer) => value(answer),
        Err(error) => Response::Error(error.to_string()),
    }
}

fn value<T: Serialize>(answer: T) -> Response<Value> {
    match serde_json::to_value(answer) {
        Ok(value) => Response::Ok(value),
        Err(error) => Response::Error(error.to_string()),
    }
}
