//! A full disk is waited for; whatever else goes wrong is not.

use std::io;

use anyhow::Context as _;

use super::*;

fn not_durable(cause: io::Error) -> anyhow::Error {
    let made: Result<(), _> = Err(CheckpointError::Persist(cause));
    let made = made.context("cannot make the cluster image durable");
    made.expect_err("an error")
}

#[test]
fn only_a_checkpoint_that_found_no_room_is_made_again() {
    assert!(is_full(&not_durable(io::ErrorKind::StorageFull.into())));
    assert!(is_full(&not_durable(io::ErrorKind::QuotaExceeded.into())));
    assert!(!is_full(&not_durable(io::Error::other("torn"))));
    let stopped = CheckpointError::Stopped("gone".to_owned());
    assert!(!is_full(&stopped.into()));
    // Of a replica that was begun in part: nobody knows what is there.
    assert!(!is_full(
        &io::Error::from(io::ErrorKind::StorageFull).into()
    ));
}
