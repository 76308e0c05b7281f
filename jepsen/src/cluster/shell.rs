//! Programs of the operating system that the harness calls, each with a deadline.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// No call of `ip`, `nft` or `umount` takes longer on a machine that works.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a program of this name lies on the path. Also looks where system programs lie, which is
/// not on every user's path.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a program to its end and answers with what it printed. Cancellation-safe: the program is
/// killed.
///
/// # Errors
/// When it is not there, fails, or takes too long; with what it said.
pub async fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> anyhow::Result<String> {
    feed(program, arguments, "").await
}

/// As [`run`], with a text on its standard input.
///
/// # Errors
/// As [`run`].
pub async fn feed<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    input: &str,
) -> anyhow::Result<String> {
    let shown = || {
        let words = arguments.iter().map(|a| a.as_ref().to_string_lossy());
        let words: Vec<_> = words.collect();
        format!("{program} {}", words.join(" "))
    };
    let path = find(program).with_context(|| format!("the program `{program}` is not there"))?;
    let call = async {
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = timeout(DEADLINE, call)
        .await
        .with_context(|| format!("`{}` did not end", shown()))?
        .with_context(|| format!("`{}`", shown()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", shown(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
