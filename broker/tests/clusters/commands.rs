//! `highwater` as its users run it, against all brokers of a fleet.

use std::process::{Output, Stdio};

use highwater_broker::process::BrokerSpec;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::fleet::Fleet;

/// What a command said, and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it said, as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
    /// Checks the exit code, and that it says these words.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "no {word:?} in: {}{}", self.out, self.err);
        }
        self
    }
}

/// `highwater` with these arguments, not started yet.
pub fn command(fleet: &Fleet, arguments: &[&str]) -> Command {
    let nodes = fleet.nodes();
    let addresses = nodes.iter().map(|node| fleet.spec(*node));
    let addresses: Vec<_> = addresses.map(BrokerSpec::address).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .args(arguments)
        .args(["--brokers", &addresses.join(",")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Waits for the end of a command.
pub async fn ended(child: Child) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().await.expect("ended");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (out, err) = (text(stdout), text(stderr));
    eprintln!("{out}{err}");
    let code = status.code().expect("no signal ended it");
    Ran { code, out, err }
}

/// Runs `highwater` with words that are separated by blanks, for as long as a busy machine may need.
pub async fn run(fleet: &Fleet, words: &str) -> Ran {
    eprintln!("$ highwater {words}");
    let mut arguments: Vec<&str> = words.split(' ').collect();
    arguments.extend(["--timeout", "60"]);
    let child = command(fleet, &arguments).spawn();
    ended(child.expect("started")).await
}
