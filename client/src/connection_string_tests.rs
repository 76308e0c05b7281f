//! Tests of the connection string.

use super::*;

#[test]
fn hosts_ports_and_options_are_read() {
    let parsed: ConnectionString =
        "highwater://a:1,b,[::1]:7,[fe80::2]?request_timeout_ms=250&client_id=x"
            .parse()
            .unwrap();
    assert_eq!(
        parsed.brokers,
        ["a:1", "b:9094", "[::1]:7", "[fe80::2]:9094"]
    );
    assert_eq!(parsed.request_timeout, Some(Duration::from_millis(250)));
    assert_eq!(parsed.client_id.as_deref(), Some("x"));
    let bare: ConnectionString = "localhost:9094".parse().unwrap();
    assert_eq!(bare.brokers, ["localhost:9094"]);
}

#[test]
fn mistakes_are_named() {
    for (text, part) in [
        ("kafka://a", "scheme"),
        ("highwater://", "no broker"),
        ("a:0", "not a port"),
        ("a:99999", "not a port"),
        ("[::1", "closing"),
        ("a b:1", "host:port"),
        ("a?colour=red", "unknown key"),
        ("a?client_id", "key=value"),
        ("a?request_timeout_ms=soon", "milliseconds"),
    ] {
        let error = text.parse::<ConnectionString>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
