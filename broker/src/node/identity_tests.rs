//! Each kind of wrong data directory is one clear line, and is left as it was.

use highwater_env::OsDisk;

use super::*;

fn load(dir: &Path, id: u32) -> Result<Identity, IdentityError> {
    Identity::load_or_create(&OsDisk, dir, NodeId(id), || "abc".to_owned())
}

#[test]
fn an_empty_directory_gets_an_identity_that_stays() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let made = load(dir.path(), 3).expect("created");
    assert_eq!(load(dir.path(), 3).expect("loaded"), made);
}

#[test]
fn another_brokers_directory_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    load(dir.path(), 3).expect("created");
    let message = load(dir.path(), 4).expect_err("refused").to_string();
    assert!(message.contains("belongs to broker 3"), "{message}");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut identity = load(dir.path(), 3).expect("created");
    identity.format_version = FORMAT_VERSION + 1;
    identity.store(&OsDisk, dir.path()).expect("stored");
    let message = load(dir.path(), 3).expect_err("refused").to_string();
    assert!(message.contains("newer highwater"), "{message}");
}

#[test]
fn damage_and_loss_are_told_apart_from_an_empty_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("wal")).expect("wal directory");
    assert!(matches!(
        load(dir.path(), 3),
        Err(IdentityError::Missing { .. })
    ));
    std::fs::write(dir.path().join(FILE), b"{").expect("written");
    assert!(matches!(
        load(dir.path(), 3),
        Err(IdentityError::Damaged { .. })
    ));
    assert_eq!(std::fs::read(dir.path().join(FILE)).expect("read"), b"{");
}

#[test]
fn a_member_whose_log_is_gone_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = dir.path().join("wal");
    let mut identity = load(dir.path(), 3).expect("created");
    identity.check_log(&OsDisk, &log).expect("no member yet");
    identity.cluster_id = Some("c".to_owned());
    std::fs::create_dir(&log).expect("log directory");
    std::fs::create_dir(log.join("lost+found")).expect("not a log file");
    let message = identity.check_log(&OsDisk, &log).expect_err("refused");
    assert!(message.to_string().contains("is the disk mounted?"));
    std::fs::write(log.join("0000000001.wal"), b"").expect("written");
    identity.check_log(&OsDisk, &log).expect("a log");
}

/// What version 1 wrote, with everything in it.
/// As releases before the checksum wrote it.
const VERSION_1: &[u8] = include_bytes!("golden/v1.identity.json");
const CHECKED: &[u8] = include_bytes!("golden/v1.checked.identity.json");

fn of_version_1() -> Identity {
    let incarnation = "0123456789abcdef0123456789abcdef".to_owned();
    Identity {
        format_version: 1,
        node_id: 3,
        incarnation: incarnation.clone(),
        cluster_id: Some("fedcba9876543210fedcba9876543210".to_owned()),
        founders: vec![Founder {
            node_id: 3,
            incarnation,
            address: "broker-3:9094".to_owned(),
            rack: "a".to_owned(),
        }],
        initiator: true,
    }
}

#[test]
fn version_1_is_read_and_written_byte_for_byte() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join(FILE);
    for written in [VERSION_1, CHECKED] {
        std::fs::write(&file, written).expect("written");
        assert_eq!(load(dir.path(), 3).expect("read"), of_version_1());
    }
    of_version_1().store(&OsDisk, dir.path()).expect("stored");
    assert_eq!(std::fs::read(&file).expect("read"), CHECKED);
}

/// One whose incarnation has rotted would be refused by the others as another disk under a known number.
#[test]
fn no_flipped_bit_makes_another_broker_of_it() {
    let (disk, dir) = (highwater_env::SimDisk::default(), Path::new("/data"));
    disk.create_dir_all(dir).expect("made");
    let file = dir.join(FILE);
    let mut named = 0;
    for bit in 0..CHECKED.len() * 8 {
        let mut rotten = CHECKED.to_vec();
        rotten[bit / 8] ^= 1 << (bit % 8);
        replace_durably(&disk, &file, &rotten).expect("written");
        let new = || unreachable!("there is one");
        match Identity::load_or_create(&disk, dir, NodeId(3), new) {
            Ok(read) => assert_eq!(read, of_version_1(), "bit {bit}"),
            Err(IdentityError::Damaged { path, .. }) => {
                assert_eq!(path, file);
                named += 1;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
    // The others are those of the checksum's own name and of white space.
    assert!(
        named > CHECKED.len() * 7,
        "{named} of {}",
        CHECKED.len() * 8
    );
}

#[test]
fn what_version_1_may_leave_out_is_not_missed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let text = r#"{"format_version":1,"node_id":3,"incarnation":"abc","cluster_id":null}"#;
    std::fs::write(dir.path().join(FILE), text).expect("written");
    let read = load(dir.path(), 3).expect("read");
    assert_eq!(read.cluster_id, None);
    assert!(read.founders.is_empty() && !read.initiator);
}
