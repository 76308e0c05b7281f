//! The admin server over real HTTP: every route, in good health and in bad.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

#[derive(Default)]
struct Broker {
    ready: AtomicBool,
}

impl Health for Broker {
    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn checks(&self) -> Vec<Check> {
        let metadata = if self.ready() {
            CheckState::Ok
        } else {
            CheckState::Failed
        };
        vec![
            Check::new("disk", CheckState::Warning, "2 GiB are left: add space"),
            Check::new("metadata", metadata, "the metadata group has no leader"),
        ]
    }
}

struct Server {
    address: SocketAddr,
    broker: Arc<Broker>,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (broker, stop) = (Arc::new(Broker::default()), CancellationToken::new());
    let admin = Admin::new(broker.clone(), Metrics::detached().expect("valid bounds"));
    let task = tokio::spawn(admin.serve(listener, stop.clone()));
    Server {
        address,
        broker,
        stop,
        task,
    }
}

impl Server {
    /// The status line's code and the whole response.
    async fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("the server listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("read");
        let code = response
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        (code.expect("a status line"), response)
    }
}

#[tokio::test]
async fn readiness_follows_the_broker_and_says_what_is_missing() {
    let server = start().await;
    assert_eq!(server.get("/livez", "*/*").await.0, 200);
    let (code, text) = server.get("/readyz", "*/*").await;
    assert_eq!(code, 503);
    assert!(
        text.contains("failed  metadata: the metadata group has no leader\n"),
        "{text}"
    );
    server.broker.ready.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/readyz", "*/*").await.0, 200);
}

#[tokio::test]
async fn health_is_short_unless_asked_and_json_on_request() {
    let server = start().await;
    let (code, text) = server.get("/healthz", "*/*").await;
    assert_eq!(code, 503);
    assert!(!text.contains("disk"), "{text}");
    server.broker.ready.store(true, Ordering::Relaxed);
    let (code, text) = server.get("/healthz?verbose", "*/*").await;
    assert_eq!(code, 200, "a warning is no failure");
    assert!(
        text.contains("warning disk: 2 GiB are left: add space\n"),
        "{text}"
    );
    let (_, json) = server.get("/healthz", "application/json").await;
    assert!(
        json.contains(r#"{"name":"disk","state":"warning""#),
        "{json}"
    );
}

#[tokio::test]
async fn metrics_are_served_and_the_server_stops_when_told() {
    let server = start().await;
    let (code, text) = server.get("/metrics", "*/*").await;
    assert_eq!(code, 200);
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
    assert_eq!(server.get("/nothing", "*/*").await.0, 404);
    server.stop.cancel();
    server
        .task
        .await
        .expect("joined")
        .expect("no listener error");
}
