//! Ports for brokers that nobody else is likely to take before they do.
//!
//! All brokers must know each other's addresses before the first of them listens, so their ports
//! are chosen by the parent. A chosen port is held open until its broker is about to start, and
//! lies outside the range from which the kernel takes ports for outgoing connections; what little
//! can still go wrong shows as "address in use" at start, and the cluster tries other ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use rand::Rng as _;

/// Below the range for outgoing connections of Linux (32768 on) and of everyone else (49152 on),
/// above the ports that well-known services use.
const CANDIDATES: Range<u16> = 20_000..32_000;

/// Tries before giving up. Even with half of the range taken, all of them fail once in 2^64.
const TRIES: u32 = 64;

/// A port of the loopback address that this process holds.
#[derive(Debug)]
pub struct HeldPort {
    listener: TcpListener,
    port: u16,
}

impl HeldPort {
    /// Takes exactly this port.
    ///
    /// # Errors
    /// When someone else has it.
    pub fn exactly(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Takes any port.
    ///
    /// # Errors
    /// When none of many candidates is free.
    pub fn any() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            match Self::exactly(rand::rng().random_range(CANDIDATES)) {
                Ok(port) => return Ok(port),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes this port, or any other when someone else has it.
    ///
    /// # Errors
    /// When none is free.
    pub fn preferably(port: u16) -> io::Result<Self> {
        Self::exactly(port).or_else(|_| Self::any())
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Lets go, so that a broker can take it at once.
    pub fn release(self) -> u16 {
        drop(self.listener);
        self.port
    }
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
