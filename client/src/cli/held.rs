//! A command of the shell that lives no longer than whoever started it, however that one ends.

use std::io;
use std::os::fd::AsFd as _;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Runs the command `$1` while somebody holds standard input open. Once nobody does, however whoever
/// did may have ended, the command and all that it started and left in its process group are asked to
/// end, and made to five seconds later.
const WHILE_HELD: &str = r#"
exec 3<&0 </dev/null
{
    trap '' TERM
    cat <&3 >/dev/null
    kill -s TERM -- -$$
    sleep 5
    kill -s KILL -- -$$
} &
watcher=$!
(exec 3<&-; eval "$1")
status=$?
kill -s KILL $watcher
exit $status
"#;

/// Starts a command of the shell that ends when its standard input is dropped. What it prints goes to
/// standard error: standard output is ours, for programs to read.
pub(super) fn start(command: &str) -> io::Result<Child> {
    let errors = || io::stderr().as_fd().try_clone_to_owned();
    Command::new("sh")
        .args(["-c", WHILE_HELD, "sh", command])
        .stdin(Stdio::piped())
        .stdout(errors()?)
        .stderr(errors()?)
        .process_group(0)
        .spawn()
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
