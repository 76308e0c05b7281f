//! The probe against answers of every kind, and against none.

use tokio::net::TcpListener;

use super::*;

/// Gives one connection after the other its answer.
async fn server(answers: Vec<&'static str>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a probe");
            let mut request = [0; 256];
            let _ = stream.read(&mut request).await.expect("its request");
            stream.write_all(answer.as_bytes()).await.expect("answered");
        }
    });
    (address, server)
}

async fn probe(answer: &'static str) -> Readiness {
    let (address, server) = server(vec![answer]).await;
    let readiness = readiness(address).await;
    server.await.expect("joined");
    readiness
}

#[tokio::test]
async fn caught_up_is_ready_without_a_replication_check_that_is_not_ok() {
    for (health, expected) in [
        (
            "HTTP/1.1 200 OK\r\n\r\nhealthy\nok      replication: all\n",
            Readiness::Ready,
        ),
        (
            "HTTP/1.1 503 X\r\n\r\nnot healthy\nfailed  disk: full\n",
            Readiness::Ready,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhealthy\nwarning replication: 2 shards are behind\n",
            Readiness::NotReady("warning replication: 2 shards are behind".to_owned()),
        ),
    ] {
        let (address, server) = server(vec!["HTTP/1.1 200 OK\r\n\r\nready\n", health]).await;
        assert_eq!(caught_up(address).await, expected, "{health}");
        server.await.expect("joined");
    }
}

#[tokio::test]
async fn only_a_success_is_ready() {
    assert_eq!(
        probe("HTTP/1.1 200 OK\r\n\r\nready\n").await,
        Readiness::Ready
    );
    assert_eq!(
        probe("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready\nfailed disk: full\n").await,
        Readiness::NotReady("not ready; failed disk: full".to_owned())
    );
    assert_eq!(probe("").await, Readiness::NotReady(String::new()));
}

#[tokio::test]
async fn nobody_there_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    assert!(matches!(readiness(address).await, Readiness::NotReady(_)));
}
