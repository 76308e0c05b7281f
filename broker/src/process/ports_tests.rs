//! Ports are held, distinct, and free after release.

use super::*;

#[test]
fn a_held_port_is_nobody_elses_until_it_is_released() {
    let held = HeldPort::any().expect("a free port");
    assert!(CANDIDATES.contains(&held.number()));
    assert!(HeldPort::exactly(held.number()).is_err());
    let other = HeldPort::preferably(held.number()).expect("another one");
    assert_ne!(other.number(), held.number());
    let number = held.release();
    assert_eq!(
        HeldPort::preferably(number).expect("free again").number(),
        number
    );
}
