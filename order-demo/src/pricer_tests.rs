//! Tests of the service's memory of what is priced.

use super::*;

#[test]
fn holes_are_remembered_until_they_are_filled() {
    let at = |offset| Source {
        partition: 2,
        offset,
    };
    let mut done = Done::default();
    for offset in [0, 1, 3, 4, 1] {
        done.add(at(offset));
    }
    assert_eq!((done.next(2), done.count), (2, 4));
    assert!(done.contains(at(4)) && !done.contains(at(2)));
    done.add(at(2));
    assert_eq!((done.next(2), done.count), (5, 5));
    assert!(done.beyond.is_empty());
    assert_eq!(done.next(0), 0);
}
