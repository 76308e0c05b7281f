//! Each kind of failure has its own code.

use std::io::{Error, ErrorKind};

use anyhow::Context as _;

use super::*;

#[test]
fn a_cause_is_said_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("reading /there failed: {source}")]
    struct Wordy {
        source: Error,
    }
    let source = Error::other("no such place");
    let error = anyhow::Error::new(Wordy { source }).context("the log");
    assert_eq!(
        Failure::failed(error).line(),
        "the log: reading /there failed: no such place"
    );
}

#[test]
fn an_address_in_use_is_told_apart_however_deep_it_lies() {
    let cause: Result<(), _> = Err(Error::from(ErrorKind::AddrInUse));
    let error = cause
        .context("0.0.0.0:9094")
        .context("listen.grpc")
        .expect_err("an error");
    assert_eq!(Failure::failed(error).code, ADDRESS_IN_USE);
    let other = Error::from(ErrorKind::NotFound);
    assert_eq!(Failure::failed(other.into()).code, FAILED);
}
