//! The connection string `highwater://host:9094,host2:9094?key=value&...`.

use std::time::Duration;

use crate::error::ConnectError;

/// The port that is taken when an address names none.
pub const DEFAULT_PORT: u16 = 9094;

/// A parsed connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// First addresses to ask, `host:port` each.
    pub brokers: Vec<String>,
    /// `connect_timeout_ms`.
    pub connect_timeout: Option<Duration>,
    /// `request_timeout_ms`.
    pub request_timeout: Option<Duration>,
    /// `client_id`.
    pub client_id: Option<String>,
}

fn wrong(what: impl Into<String>) -> ConnectError {
    ConnectError::ConnectionString(what.into())
}

fn address(text: &str) -> Result<String, ConnectError> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        // An IPv6 address in brackets; its colons are not the port's.
        Some(rest) => {
            let (inside, after) = rest
                .split_once(']')
                .ok_or_else(|| wrong(format!("{text:?} has no closing ]")))?;
            (format!("[{inside}]"), after.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(wrong(format!("{text:?} is not host:port")));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(wrong(format!("{port:?} in {text:?} is not a port"))),
        },
    };
    Ok(format!("{host}:{port}"))
}

fn millis(key: &str, value: &str) -> Result<Option<Duration>, ConnectError> {
    match value.parse::<u64>() {
        Ok(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => Err(wrong(format!(
            "{key} must be milliseconds above 0, not {value:?}"
        ))),
    }
}

impl std::str::FromStr for ConnectionString {
    type Err = ConnectError;

    /// Reads a connection string. The scheme may be left out: `host1,host2` works too.
    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let rest = match text.trim().split_once("://") {
            None => text.trim(),
            Some(("highwater", rest)) => rest,
            Some((scheme, _)) => {
                return Err(wrong(format!(
                    "scheme {scheme:?}: only highwater:// is known"
                )));
            }
        };
        let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        let brokers = hosts
            .split(',')
            .filter(|host| !host.trim().is_empty())
            .map(address)
            .collect::<Result<Vec<_>, _>>()?;
        if brokers.is_empty() {
            return Err(wrong("no broker is named"));
        }
        let mut parsed = Self {
            brokers,
            connect_timeout: None,
            request_timeout: None,
            client_id: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("{pair:?} is not key=value")))?;
            match key {
                "connect_timeout_ms" => parsed.connect_timeout = millis(key, value)?,
                "request_timeout_ms" => parsed.request_timeout = millis(key, value)?,
                "client_id" => parsed.client_id = Some(value.to_owned()),
                _ => return Err(wrong(format!("unknown key {key:?}"))),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
#[path = "connection_string_tests.rs"]
mod tests;
