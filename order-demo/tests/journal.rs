//! The journal survives a crash at any byte, and hides no damage.

use highwater_order_demo::journal::{Entry, Fate, Journal, JournalError, JournalFile};
use highwater_order_demo::order::OrderNumber;

fn number(at: u64) -> OrderNumber {
    OrderNumber(at)
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::Intended {
            from: number(0),
            to: number(3),
        },
        Entry::Accepted(number(1)),
        Entry::Intended {
            from: number(3),
            to: number(5),
        },
        Entry::Refused(number(0)),
        Entry::Unknown(number(4)),
    ]
}

fn text() -> String {
    entries().iter().map(Entry::to_line).collect()
}

#[test]
fn every_order_has_the_fate_that_was_written() {
    let journal = Journal::parse(text().as_bytes()).expect("whole");
    let fates: Vec<_> = journal.fates().map(|(_, fate)| fate).collect();
    let expected = [
        Fate::Refused,
        Fate::Accepted,
        Fate::Unknown,
        Fate::Unknown,
        Fate::Unknown,
    ];
    assert_eq!(fates, expected);
    assert_eq!(journal.fate(number(5)), None);
}

#[test]
fn a_journal_cut_anywhere_reads_up_to_its_last_whole_line() {
    let text = text();
    for cut in 0..=text.len() {
        let journal = Journal::parse(&text.as_bytes()[..cut])
            .unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let whole = text[..cut].matches('\n').count();
        let lines: String = entries()[..whole].iter().map(Entry::to_line).collect();
        assert_eq!(
            Ok(journal),
            Journal::parse(lines.as_bytes()),
            "cut at {cut}"
        );
    }
}

#[test]
fn damage_before_the_last_line_is_an_error() {
    let text = text();
    let last_line = text.trim_end().rfind('\n').expect("several lines");
    for at in (0..last_line).filter(|at| text.as_bytes()[*at] != b'\n') {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 0x01;
        let result = Journal::parse(&bytes);
        assert!(
            matches!(result, Err(JournalError::Damaged { .. })),
            "byte {at}: {result:?}"
        );
    }
}

#[test]
fn contradictions_are_errors() {
    let parse = |entries: &[Entry]| {
        let text: String = entries.iter().map(Entry::to_line).collect();
        Journal::parse(text.as_bytes())
    };
    let intended = Entry::Intended {
        from: number(0),
        to: number(2),
    };
    let (yes, no) = (Entry::Accepted(number(1)), Entry::Refused(number(1)));
    for bad in [
        &[intended, yes, no][..],
        &[yes],
        &[intended, Entry::Refused(number(2))],
        &[
            intended,
            Entry::Intended {
                from: number(1),
                to: number(3),
            },
        ],
    ] {
        let result = parse(bad);
        assert!(
            matches!(result, Err(JournalError::Contradiction { .. })),
            "{bad:?}: {result:?}"
        );
    }
    assert!(parse(&[intended, yes, yes]).is_ok());
}

#[tokio::test]
async fn the_file_holds_what_was_appended_and_is_never_reused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    let mut file = JournalFile::create(&path).await.expect("a new file");
    for chunk in entries().chunks(2) {
        file.append(chunk).await.expect("appended");
    }
    drop(file);
    let bytes = tokio::fs::read(&path).await.expect("readable");
    assert_eq!(bytes, text().as_bytes());
    let again = JournalFile::create(&path).await;
    assert_eq!(
        again.expect_err("exists").kind(),
        std::io::ErrorKind::AlreadyExists
    );
}
