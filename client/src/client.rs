//! The client: one per process is enough; producers, consumers and admins share its connections.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::Service;

use crate::admin::Admin;
use crate::cluster::{Cluster, Timings};
use crate::connect::{Connector, Io, Pool, PoolConfig};
use crate::connection_string::ConnectionString;
use crate::consumer::ConsumerBuilder;
use crate::error::{Cause, ConnectError};
use crate::group::{GroupAdmin, GroupBuilder};
use crate::producer::ProducerBuilder;
use crate::resilience::RetryBudget;
use crate::resilience::outbox::RelayBuilder;
use crate::view::{ClusterView, TopicView};

/// Milliseconds since the Unix epoch, from wherever the caller wants.
pub(crate) type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A connection to a cluster. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) wall_clock: WallClock,
    pub(crate) request_timeout: Duration,
    pub(crate) client_id: String,
    /// Ends with the last clone: the set aborts its tasks when dropped.
    _watchers: JoinSet<()>,
}

/// Settings of a [`Client`].
pub struct ClientBuilder {
    brokers: Vec<String>,
    connector: Connector,
    client_id: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    retry_most: Duration,
    missing_grace: Duration,
    retry_budget: Option<Arc<RetryBudget>>,
    watchers: usize,
    seed: Option<u64>,
    wall_clock: WallClock,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            connector: Connector::tcp(),
            client_id: concat!("highwater-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            retry_most: Duration::from_millis(250),
            missing_grace: Duration::from_secs(2),
            retry_budget: None,
            watchers: 2,
            seed: None,
            wall_clock: Arc::new(|| jiff::Timestamp::now().as_millisecond()),
        }
    }
}

impl ClientBuilder {
    /// Takes the brokers and options of a connection string,
    /// `highwater://host:9094,host2:9094?request_timeout_ms=5000`. Keys: `connect_timeout_ms`,
    /// `request_timeout_ms`, `client_id`.
    ///
    /// # Errors
    /// [`ConnectError::ConnectionString`] naming the mistake.
    pub fn connection_string(mut self, text: &str) -> Result<Self, ConnectError> {
        let parsed: ConnectionString = text.parse()?;
        self.brokers = parsed.brokers;
        self.connect_timeout = parsed.connect_timeout.unwrap_or(self.connect_timeout);
        self.request_timeout = parsed.request_timeout.unwrap_or(self.request_timeout);
        self.client_id = parsed.client_id.unwrap_or(self.client_id);
        Ok(self)
    }
    /// First addresses to ask, `host:port` each; the others are learnt.
    #[must_use]
    pub fn brokers<S: Into<String>>(mut self, brokers: impl IntoIterator<Item = S>) -> Self {
        self.brokers = brokers.into_iter().map(Into::into).collect();
        self
    }
    /// Opens connections with `connector` instead of TCP: it is called with
    /// `http://host:port` and answers with a byte stream.
    #[must_use]
    pub fn connector<S>(mut self, connector: S) -> Self
    where
        S: Service<Uri> + Clone + Send + Sync + 'static,
        S::Response: Io + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
        S::Future: Send + 'static,
    {
        self.connector = Connector::new(connector);
        self
    }
    /// Sent as the user agent.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }
    /// Bound of one connection attempt. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
    /// Bound of one attempt of a call, and of an admin call with its retries. Default 10 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
    /// The longest pause between attempts. Default 250 ms.
    #[must_use]
    pub fn max_retry_pause(mut self, pause: Duration) -> Self {
        self.retry_most = pause;
        self
    }
    /// How long a topic that a broker calls missing is waited for, because that broker may lag
    /// behind the one that created it. Default 2 s.
    #[must_use]
    pub fn missing_topic_grace(mut self, grace: Duration) -> Self {
        self.missing_grace = grace;
        self
    }
    /// Retries calls only as far as this budget reaches, which the application's own layers may share
    /// ([`RetryPolicy::budget`](crate::group::RetryPolicy::budget), [`Retry`](crate::resilience::Retry)):
    /// a retry that it refuses is put off, up to the deadline of its call. It covers calls with one
    /// answer and the outbox, as far as they reached a broker. It does not cover what is one attempt at
    /// a time for ever, and whose delay would cost more than it saves: connections, streams of records,
    /// and the session of a group.
    #[must_use]
    pub fn retry_budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.retry_budget = Some(budget);
        self
    }
    /// Seeds every random choice (jitter, first partition), so that a simulation repeats itself.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
    /// The clock that stamps records without a timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall_clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.wall_clock = Arc::new(clock);
        self
    }

    /// Starts the client without waiting for a broker. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError::ConnectionString`] when no broker is named.
    pub fn build(self) -> Result<Client, ConnectError> {
        if self.brokers.is_empty() {
            return Err(ConnectError::ConnectionString(
                "no broker is named".to_owned(),
            ));
        }
        let pool = PoolConfig {
            connect_timeout: self.connect_timeout,
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
            client_id: self.client_id.clone(),
        };
        let timings = Timings {
            request_timeout: self.request_timeout,
            retry_first: Duration::from_millis(10),
            retry_most: self.retry_most,
            missing_grace: self.missing_grace,
        };
        let seed = self.seed.unwrap_or_else(rand::random);
        let pool = Pool::new(self.connector, pool);
        let cluster = Arc::new(Cluster::new(
            pool,
            self.brokers,
            (timings, self.retry_budget),
            seed,
        ));
        let mut watchers = JoinSet::new();
        for watcher in 0..self.watchers {
            watchers.spawn(Arc::clone(&cluster).watch(watcher));
        }
        let inner = Inner {
            cluster,
            wall_clock: self.wall_clock,
            request_timeout: self.request_timeout,
            client_id: self.client_id,
            _watchers: watchers,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }

    /// Starts the client and waits until a broker has answered, for `request_timeout` at the most.
    /// Cancellation-safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`ConnectError::NoBroker`] when none answered.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let (brokers, limit) = (self.brokers.clone(), self.request_timeout);
        let client = self.build()?;
        if client.inner.cluster.connected(Instant::now() + limit).await {
            return Ok(client);
        }
        let last = client.inner.cluster.last_failure();
        Err(ConnectError::NoBroker {
            brokers,
            seconds: limit.as_secs(),
            last,
        })
    }
}

impl Client {
    /// Connects with a connection string and defaults; see [`ClientBuilder::connect`].
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(connection_string: &str) -> Result<Self, ConnectError> {
        Self::builder()
            .connection_string(connection_string)?
            .connect()
            .await
    }
    /// Settings to start from.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
    /// A producer, to be set up.
    #[must_use]
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }
    /// A consumer, to be set up.
    #[must_use]
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }
    /// A member of the consumer group `name`, to be set up.
    #[must_use]
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.clone(), name.into())
    }
    /// Looks at consumer groups and changes them.
    #[must_use]
    pub fn groups(&self) -> GroupAdmin {
        GroupAdmin::new(self.clone())
    }
    /// A relay that publishes the rows of the outbox `name`, to be set up. The name stands in the
    /// header of each record; it must not change while rows are unpublished.
    #[must_use]
    pub fn outbox(&self, name: impl Into<String>) -> RelayBuilder {
        RelayBuilder::new(self.clone(), name.into())
    }
    /// Administrative calls.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }
    /// What is known of the cluster right now. Topics appear once somebody asked for them.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        self.inner.cluster.view()
    }
    /// Waits for a change of [`Client::view`].
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.cluster.changes()
    }
    /// The topic with its partitions and leaders, kept up to date from now on; waits until it is
    /// ready, for the request timeout at the most. Cancellation-safe.
    ///
    /// # Errors
    /// [`Cause::UnknownTopic`], or [`Cause::Deadline`].
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicView>, Cause> {
        self.inner
            .cluster
            .topic(name, Instant::now() + self.inner.request_timeout)
            .await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("cluster_id", &self.view().cluster_id)
            .finish_non_exhaustive()
    }
}
