//! Mounts begin and end cleanly.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater_powerfs::{Control, MountError, Options, mount, release_stale};

use super::rig::{Rig, can_mount, rig_or_skip, tree};

const PATIENCE: Duration = Duration::from_secs(60);

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn is_listed(options: &Options) -> bool {
    mounts().contains(options.mount.to_str().unwrap())
}

#[test]
fn what_is_seen_at_the_end_is_there_again() {
    let mut rig = rig_or_skip!();
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), b"content").unwrap();
    fs::hard_link(rig.path("d/f"), rig.path("g")).unwrap();
    std::os::unix::fs::symlink("d/f", rig.path("s")).unwrap();
    let before = tree(rig.root());
    rig.remount();
    assert_eq!(tree(rig.root()), before);
    rig.lose();
    assert_eq!(tree(rig.root()), before, "and durable");
    fs::write(rig.path("g"), b"changed").unwrap();
    assert_eq!(fs::read(rig.path("d/f")).unwrap(), b"changed");
    rig.unmount();
    assert!(!is_listed(&rig.options) && !rig.options.control.exists());
    assert_eq!(
        fs::read(rig.options.backing.join("tree/s")).unwrap(),
        b"changed"
    );
}

#[test]
fn a_busy_mount_ends_all_the_same() {
    let mut rig = rig_or_skip!();
    let file = File::create(rig.path("open")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    rig.unmount();
    assert!(!is_listed(&rig.options));
    assert!(file.write_at(b"y", 0).is_err());
}

#[test]
fn a_mount_point_in_use_and_a_socket_in_use_are_refused() {
    let rig = rig_or_skip!();
    let again = mount(&rig.options).unwrap_err();
    assert!(matches!(again, MountError::Mount { .. }), "{again}");
    let other = Rig::new();
    let mut options = other.options.clone();
    drop(other);
    fs::create_dir_all(&options.mount).unwrap();
    options.control = rig.options.control.clone();
    let taken = mount(&options).unwrap_err();
    assert!(matches!(taken, MountError::Control { .. }), "{taken}");
    assert!(!is_listed(&options));
    rig.control().ping().unwrap();
    fs::remove_dir_all(options.mount.parent().unwrap()).unwrap();
}

#[test]
fn lines_that_are_no_requests_are_answered() {
    let rig = rig_or_skip!();
    let mut stream = UnixStream::connect(&rig.options.control).unwrap();
    stream.write_all(b"nonsense\n{\"cmd\":\"ping\"}\n").unwrap();
    let replies: Vec<String> = BufReader::new(stream)
        .lines()
        .take(2)
        .map(Result::unwrap)
        .collect();
    assert!(replies[0].starts_with("{\"error\":"), "{replies:?}");
    assert_eq!(replies[1], "{\"ok\":null}");
}

fn start(options: &Options) -> Child {
    Command::new(env!("CARGO_BIN_EXE_highwater-powerfs"))
        .arg("--backing")
        .arg(&options.backing)
        .arg("--mount")
        .arg(&options.mount)
        .arg("--control")
        .arg(&options.control)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn the_program_serves_until_it_is_told_to_end() {
    if !can_mount("the_program_serves_until_it_is_told_to_end") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let options = Options {
        backing: home.path().join("backing"),
        mount: home.path().join("mount"),
        control: home.path().join("control"),
    };
    fs::create_dir(&options.mount).unwrap();
    let mut child = start(&options);
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("mounted "), "{line:?}");
    fs::write(options.mount.join("f"), b"kept").unwrap();
    signal(&child, rustix::process::Signal::TERM);
    assert!(child.wait().unwrap().success());
    assert!(!is_listed(&options));

    let mut child = start(&options);
    let mut control = Control::connect_within(&options.control, PATIENCE).unwrap();
    assert_eq!(fs::read(options.mount.join("f")).unwrap(), b"kept");
    control.shutdown().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!is_listed(&options));

    // Killed: its mount stays, dead, until somebody takes it away.
    let mut child = start(&options);
    Control::connect_within(&options.control, PATIENCE).unwrap();
    assert!(!release_stale(&options.mount).unwrap(), "it is alive");
    signal(&child, rustix::process::Signal::KILL);
    child.wait().unwrap();
    assert!(is_listed(&options));
    assert!(release_stale(&options.mount).unwrap());
    assert!(!is_listed(&options));
    assert!(!release_stale(&options.mount).unwrap());
    let lost = mount(&options).unwrap_err();
    assert!(matches!(lost, MountError::Backing { .. }), "{lost}");
}
