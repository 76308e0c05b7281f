//! Ports are held, distinct, and free after release.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_held_port_is_nobody_elses_until_it_is_released() {
    let held = HeldPort::any().expect("a free port");
    assert!(CANDIDATES.contains(&held.number()));
    assert!(HeldPort::exactly(held.number()).is_err());
    let other = HeldPort::preferably(held.number()).expect("another one");
    assert_ne!(other.number(), held.number());
    let number = held.release();
    free_again(number);
}

/// Waits until a released port can be taken: another test's child inherits every open file of
/// this process for the moment between its fork and its exec, this listener among them.
fn free_again(number: u16) {
    let begun = Instant::now();
    while let Err(error) = HeldPort::exactly(number) {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "port {number} is still taken: {error}"
        );
        std::thread::yield_now();
    }
}
