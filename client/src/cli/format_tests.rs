//! Tests of formats, both ways.

use std::sync::Arc;

use highwater_proto::{Offset, PartitionId, TimestampMs};

use super::*;

fn read(format: &str, line: &str) -> Result<ProducerRecord, String> {
    let format: Format = format.parse()?;
    format.check_input()?;
    format.read(
        Bytes::copy_from_slice(line.as_bytes()),
        ProducerRecord::to("t"),
    )
}

#[test]
fn records_are_written_as_the_format_says() {
    let record = ConsumedRecord {
        topic: Arc::from("t"),
        partition: PartitionId(3),
        offset: Offset(42),
        timestamp: TimestampMs(7),
        key: Some(Bytes::from("k")),
        value: None,
        headers: vec![("a".into(), Some(Bytes::from("1"))), ("a".into(), None)],
    };
    let written = |format: &str| {
        let mut out = Vec::new();
        format
            .parse::<Format>()
            .unwrap()
            .write(&record, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        written("%t/%p@%o %T %k=%v [%h]\\n"),
        "t/3@42 7 k= [a=1,a=]\n"
    );
    assert_eq!(written("100%% é\\t\\x41\\\\"), "100% é\tA\\");
    for wrong in ["%", "%q", "\\", "\\q", "\\x4", "\\xzz"] {
        assert!(wrong.parse::<Format>().is_err(), "{wrong}");
    }
}

#[test]
fn lines_are_taken_apart_at_what_stands_between_the_fields() {
    let record = read("%k %v\\n", "key value with spaces").unwrap();
    assert_eq!(
        (record.key.unwrap(), record.value.unwrap()),
        ("key".into(), "value with spaces".into())
    );
    let record = read("%p|%k||%h||%v", "5|a|b||x=1,y=||v").unwrap();
    assert_eq!(record.partition, Some(PartitionId(5)));
    assert_eq!(record.key.unwrap(), "a|b");
    assert_eq!(record.headers.len(), 2);
    assert_eq!(read("%v", "").unwrap().value.unwrap(), "");
    assert!(read("%k %v", "keyonly").unwrap_err().contains("is missing"));
    assert!(
        read("%p %v", "x y")
            .unwrap_err()
            .contains("not a partition")
    );
    assert!(read("[%v]", "[v] ").is_err());
    for wrong in ["%o %v", "%k%v", "%k\\n%v\\n"] {
        assert!(read(wrong, "a b").is_err(), "{wrong}");
    }
}
