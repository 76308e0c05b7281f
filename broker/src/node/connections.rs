//! The bound on client connections. Other brokers come in at the same door and are never turned
//! away: a flood of clients must not keep followers from their leader. So a connection counts from
//! its first call to a service for clients on, until it ends.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// A connection: where it comes from, and its place among those of clients, taken with its first
/// call. Every request that comes by it carries it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    place: Arc<OnceLock<OwnedSemaphorePermit>>,
}

impl Connection {
    /// One that was just accepted.
    #[must_use]
    pub fn from(peer: SocketAddr) -> Self {
        let place = Arc::default();
        Self { peer, place }
    }
}

/// Lets in the calls of a bounded number of connections.
#[derive(Debug, Clone)]
pub struct ClientConnections {
    places: Arc<Semaphore>,
    limit: u32,
}

impl ClientConnections {
    /// A bound of `limit` connections.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let places = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            limit,
        }
    }

    fn admit(&self, connection: &Connection) -> Result<(), Status> {
        if connection.place.get().is_some() {
            return Ok(());
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!("highwater_client_connections_refused_total").increment(1);
            return Err(Status::resource_exhausted(format!(
                "this broker serves {} client connections already; close some, or raise \
                 limits.max_connections",
                self.limit
            )));
        };
        // Two first calls at once: one place is given back.
        let _ = connection.place.set(place);
        Ok(())
    }
}

impl Interceptor for ClientConnections {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(connection) = request.extensions().get::<Connection>() {
            self.admit(connection)?;
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_once_and_until_it_ends() {
        let connections = ClientConnections::new(1);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let (first, second) = (Connection::from(peer), Connection::from(peer));
        connections.admit(&first).expect("there is room");
        connections.admit(&first).expect("it has its place");
        let refused = connections.admit(&second).expect_err("full");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("limits.max_connections"));
        drop(first);
        connections.admit(&second).expect("there is room again");
    }
}
