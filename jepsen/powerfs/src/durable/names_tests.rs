//! Names become durable as documented.

use std::ffi::OsString;

use super::*;

const A: NodeId = 10;
const B: NodeId = 11;

/// Two durable directories, `a` and `b`, in the root.
fn names() -> Names {
    let root = BTreeMap::from([(OsString::from("a"), A), (OsString::from("b"), B)]);
    Names::new(HashMap::from([
        (ROOT, root),
        (A, Listing::new()),
        (B, Listing::new()),
    ]))
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// Paths after a power loss, with their nodes.
fn lost(names: &Names) -> Vec<(String, NodeId)> {
    let (listings, ..) = names.after_loss(&mut Choice::Nothing);
    let after = Names::new(listings.clone());
    let mut all: Vec<_> = listings
        .iter()
        .flat_map(|(dir, listing)| listing.iter().map(move |(name, node)| (*dir, name, *node)))
        .map(|(dir, name, node)| {
            let dir = after.path(dir);
            (format!("{dir}/{}", name.to_string_lossy()), node)
        })
        .filter(|(_, node)| *node != A && *node != B)
        .collect();
    all.sort();
    all
}

#[test]
fn a_new_name_waits_for_its_own_directory() {
    let mut names = names();
    names.enter(A, name("x"), 20);
    names.sync(B);
    names.sync(ROOT);
    assert!(lost(&names).is_empty());
    assert_eq!(names.unsynced(), 1);
    names.sync(A);
    assert_eq!(lost(&names), [("a/x".to_owned(), 20)]);
    names.leave(A, name("x"));
    assert_eq!(lost(&names), [("a/x".to_owned(), 20)]);
    names.sync(A);
    assert!(lost(&names).is_empty());
}

#[test]
fn a_rename_within_a_directory_is_whole() {
    let mut names = names();
    names.enter(A, name("x"), 20);
    names.enter(A, name("y"), 21);
    names.sync(A);
    names.rename((A, name("x")), (A, name("y")));
    let before = [("a/x".to_owned(), 20), ("a/y".to_owned(), 21)];
    assert_eq!(lost(&names), before);
    names.sync(A);
    assert_eq!(lost(&names), [("a/y".to_owned(), 20)]);
    assert!(!names.refers_to(21));
    assert!(names.take_loose().contains(&21));
}

#[test]
fn a_rename_to_another_directory_waits_for_that_one_and_is_whole() {
    let mut names = names();
    names.enter(A, name("x"), 20);
    names.sync(A);
    names.rename((A, name("x")), (B, name("x")));
    names.sync(A);
    assert_eq!(lost(&names), [("a/x".to_owned(), 20)]);
    names.sync(B);
    assert_eq!(lost(&names), [("b/x".to_owned(), 20)]);
}

#[test]
fn a_sync_takes_earlier_changes_of_the_same_names_along() {
    // A file that was never durable moves away, and only its new directory is synced.
    let mut moved = names();
    moved.enter(A, name("x"), 20);
    moved.rename((A, name("x")), (B, name("x")));
    moved.sync(B);
    moved.sync(A);
    assert_eq!(lost(&moved), [("b/x".to_owned(), 20)], "no second name");
    // A name is given again after its file moved away, and only the old directory is synced.
    let mut again = names();
    again.enter(A, name("x"), 20);
    again.sync(A);
    again.rename((A, name("x")), (B, name("x")));
    again.enter(A, name("x"), 21);
    again.sync(A);
    let both = [("a/x".to_owned(), 21), ("b/x".to_owned(), 20)];
    assert_eq!(lost(&again), both, "neither is lost");
}

#[test]
fn what_lies_in_a_directory_without_a_durable_name_is_lost() {
    let mut names = names();
    names.enter_directory(A, name("new"), 30);
    names.enter(30, name("x"), 20);
    names.sync(30);
    assert!(lost(&names).is_empty());
    names.sync(A);
    let both = [("a/new".to_owned(), 30), ("a/new/x".to_owned(), 20)];
    assert_eq!(lost(&names), both);
}

#[test]
fn a_directory_made_again_under_its_name_is_another_directory() {
    let mut names = names();
    names.enter_directory(A, name("d"), 30);
    names.enter(30, name("x"), 20);
    names.sync(30);
    names.sync(A);
    names.leave(30, name("x"));
    names.leave(A, name("d"));
    names.enter_directory(A, name("d"), 31);
    names.sync(A);
    assert_eq!(lost(&names), [("a/d".to_owned(), 31)]);
}

#[test]
fn directories_moved_about_never_form_a_ring() {
    let mut names = names();
    names.rename((ROOT, name("a")), (B, name("a")));
    names.sync(B);
    names.rename((B, name("a")), (ROOT, name("a")));
    names.rename((ROOT, name("b")), (A, name("b")));
    names.sync(A);
    let (listings, ..) = names.after_loss(&mut Choice::Nothing);
    assert_eq!(listings.len(), 3, "all directories can be reached");
    assert_eq!(Names::new(listings).path(B), "a/b");
}

#[test]
fn a_failed_sync_leaves_names_that_no_later_sync_makes_durable() {
    let mut names = names();
    names.enter(A, name("x"), 20);
    names.drop_pending(A);
    names.sync(A);
    assert_eq!(names.lookup(A, name("x")), Some(20));
    assert!(lost(&names).is_empty());
    assert_eq!(names.unsynced(), 1, "a power loss takes it");
    let (_, discarded, survived) = names.after_loss(&mut Choice::Seeded(1));
    assert_eq!((discarded, survived), (1, 0));
}

#[test]
fn a_torn_loss_keeps_some_changes_and_follows_the_seed() {
    let mut names = names();
    for node in 20..60 {
        names.enter(A, name(&format!("f{node}")), node);
    }
    let outcome = |seed| {
        let (listings, discarded, survived) = names.after_loss(&mut Choice::Seeded(seed));
        assert_eq!(discarded + survived, 40);
        assert_eq!(listings[&A].len() as u64, survived);
        listings
    };
    let kept = outcome(7)[&A].len();
    assert!((5..35).contains(&kept), "{kept} of 40");
    assert_eq!(outcome(7), outcome(7));
    assert_ne!(outcome(7), outcome(8));
}

#[test]
fn links_parents_and_counts() {
    let mut names = names();
    names.enter(A, name("x"), 20);
    names.enter(B, name("y"), 20);
    assert_eq!(names.links(20), 2);
    assert_eq!((names.links(ROOT), names.links(A)), (4, 2));
    assert_eq!(names.counts(), (1, 3));
    assert_eq!(names.parent(A), ROOT);
    assert_eq!(names.parent(ROOT), ROOT);
    assert_eq!(names.path(20), "b/y");
    names.leave(B, name("y"));
    names.sync(B);
    assert!(names.refers_to(20));
    names.leave(A, name("x"));
    assert!(names.refers_to(20), "a sync could still give it its name");
    names.sync(A);
    assert!(!names.refers_to(20));
}
