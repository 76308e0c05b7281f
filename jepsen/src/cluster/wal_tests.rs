//! The log's own golden files are read, and what is to be hit in them is what it is said to be.

use std::path::PathBuf;

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/crates/wal/tests/golden/v1")
}

fn payload<'a>(file: &'a [u8], hit: &Hit) -> &'a [u8] {
    let from = usize::try_from(hit.frame.at).expect("small") + HEAD;
    &file[from..from + hit.frame.bytes as usize]
}

#[test]
fn what_is_hit_is_what_the_log_holds() {
    let frames = frames(&golden()).expect("readable");
    let of = |target, pick| {
        let hit = choose(&frames, target, pick).expect("there is one");
        let file = fs::read(golden().join(&hit.frame.file)).expect("readable");
        let bytes = payload(&file, &hit).to_vec();
        (hit, bytes)
    };
    let (hit, bytes) = of(Target::Vote, 5);
    assert_eq!(
        (hit.frame.group, &bytes[..]),
        (0, &b"term 3 for broker 2"[..])
    );
    for pick in [0, 7, 1 << 20, u64::MAX] {
        let (hit, bytes) = of(Target::Entry, pick);
        let within = hit.offset - hit.frame.at - HEAD as u64;
        assert!(within < u64::from(hit.frame.bytes), "{hit:?}");
        // Entries of group 2 are 900 times one letter each.
        if hit.frame.group == 2 {
            assert_eq!(
                bytes,
                vec![b'a' + u8::try_from(hit.frame.index).expect("small"); 900]
            );
        }
        let (hit, _) = of(Target::FrameHead, pick);
        assert!((hit.frame.at..hit.frame.at + HEAD as u64).contains(&hit.offset));
    }
    // The log was closed: a marker behind the last group says that it is durable.
    let (hit, _) = of(Target::Last, 3);
    assert_eq!((hit.frame.group, hit.frame.index), (2, 22));
}

#[test]
fn a_group_that_nothing_bears_witness_of_may_be_a_torn_tail() {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(golden()).expect("there") {
        let path = entry.expect("there").path();
        let name = path.file_name().expect("a name");
        fs::copy(&path, directory.path().join(name)).expect("copied");
    }
    let all = frames(directory.path()).expect("readable");
    let last = all.last().expect("frames").clone();
    let path = directory.path().join(&last.file);
    let mut bytes = fs::read(&path).expect("readable");
    let end = usize::try_from(last.at).expect("small") + HEAD + last.bytes as usize;
    // The marker goes.
    let marker = end.next_multiple_of(HEADER);
    bytes[marker..].fill(0);
    fs::write(&path, bytes).expect("written");
    let fewer = frames(directory.path()).expect("readable");
    assert!(fewer.len() < all.len());
    assert!(all.starts_with(&fewer) && !fewer.contains(&last));
}

#[test]
fn a_directory_without_a_log_holds_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("odd.wal"), "x").expect("written");
    let none = frames(directory.path()).expect("readable");
    assert!(none.is_empty() && choose(&none, Target::Last, 1).is_none());
}
