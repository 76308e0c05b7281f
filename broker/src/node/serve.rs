//! The gRPC door of a broker: all services on one listener.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use highwater_env::{Env, Listener, Net};
use highwater_proto::internal::members_server::MembersServer;
use highwater_proto::internal::peer_server::PeerServer;
use highwater_proto::internal::raft_server::RaftServer;
use highwater_proto::v1::admin_server::AdminServer;
use highwater_proto::v1::groups_server::GroupsServer;
use highwater_proto::v1::lifecycle_server::LifecycleServer;
use highwater_proto::v1::log_server::LogServer;
use highwater_proto::v1::metadata_server::MetadataServer;
use highwater_proto::v1::records_server::RecordsServer;
use highwater_proto::v1::topics_server::TopicsServer;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;

use super::connections::ClientConnections;
use super::{Broker, channel};
use crate::front::admin::AdminService;
use crate::front::groups::GroupsService;
use crate::front::ingress::Metered;
use crate::front::lifecycle::LifecycleService;
use crate::front::log::LogService;
use crate::front::members::MembersService;
use crate::front::metadata::MetadataService;
use crate::front::peer::PeerService;
use crate::front::records::RecordsService;
use crate::front::topics::TopicsService;

/// Entries and snapshots of other brokers fit into one message.
const MAX_MESSAGE_BYTES: usize = 128 << 20;
/// A request of a client: the largest batch, behind as many smaller ones as make a request. What is
/// in memory before the gate sees it comes out of a budget (front/ingress).
const MAX_REQUEST_BYTES: usize = 80 << 20;
/// As many offsets, or parked keys, as a group may have; they become one entry of a log.
const MAX_GROUP_REQUEST_BYTES: usize = 8 << 20;
/// What one stream, and one connection, may have under way before the reader takes it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 20;
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Opens the listener.
///
/// # Errors
/// One line that names the address and what to do.
pub async fn listen<N: Net>(net: &N, address: &str) -> anyhow::Result<N::Listener> {
    net.listen(address).await.with_context(|| {
        format!("cannot listen on {address}; free the address or set listen.grpc to another one")
    })
}

/// A service for clients: a bounded number of connections, requests out of a budget.
fn guarded<E: Env, S>(
    service: S,
    broker: &Broker<E>,
    clients: &ClientConnections,
) -> InterceptedService<Metered<S>, ClientConnections> {
    let metered = Metered::new(service, broker.receiving.clone());
    InterceptedService::new(metered, clients.clone())
}

/// Serves all gRPC services until `stop` fires and the calls under way are done.
///
/// # Errors
/// Those of the transport.
pub async fn serve<E, L>(
    broker: Arc<Broker<E>>,
    listener: L,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    E: Env,
    L: Listener<Stream = <E::Net as Net>::Stream>,
{
    let clients = ClientConnections::new(broker.config.limits.max_connections);
    let log = LogServer::new(LogService(Arc::clone(&broker)))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let raft = RaftServer::new(broker.groups.service())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let peer = PeerServer::new(PeerService(Arc::clone(&broker)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let records = RecordsServer::new(RecordsService::new(Arc::clone(&broker)))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let metadata = MetadataServer::new(MetadataService(Arc::clone(&broker)));
    let groups = GroupsServer::new(GroupsService(Arc::clone(&broker)))
        .max_decoding_message_size(MAX_GROUP_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let lifecycle = LifecycleServer::new(LifecycleService(Arc::clone(&broker)));
    let topics = TopicsServer::new(TopicsService(Arc::clone(&broker)));
    let members = MembersServer::new(MembersService(Arc::clone(&broker)));
    let admin = AdminServer::new(AdminService(Arc::clone(&broker)));
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .initial_stream_window_size(Some(STREAM_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .add_service(guarded(log, &broker, &clients))
        .add_service(guarded(records, &broker, &clients))
        .add_service(guarded(metadata, &broker, &clients))
        .add_service(guarded(groups, &broker, &clients))
        .add_service(guarded(admin, &broker, &clients))
        .add_service(guarded(lifecycle, &broker, &clients))
        .add_service(guarded(topics, &broker, &clients))
        .add_service(members)
        .add_service(raft)
        .add_service(peer)
        .serve_with_incoming_shutdown(channel::incoming(listener), stop.cancelled_owned())
        .await
        .context("the gRPC server failed")
}
