//! How commands end, by themselves and when nobody holds them any more.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::*;

/// Waits until a file holds a number.
async fn number_in(file: &std::path::Path) -> u32 {
    let read = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if let Ok(number) = text.trim().parse() {
                return number;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), read)
        .await
        .expect("in time")
}

fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name: its state. One that is only waited for does not run.
    let state = status
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[tokio::test]
async fn a_command_ends_as_it_likes_while_it_is_held() {
    for (command, code) in [
        ("exit 3", 3),
        ("false || true", 0),
        // It has no input, and none of ours either.
        ("cat; exit 4", 4),
        ("exec sh -c 'exit 5'", 5),
    ] {
        let mut child = start(command).expect("started");
        let held = child.stdin.take();
        let status = child.wait().await.expect("ended");
        assert_eq!(status.code(), Some(code), "{command}");
        drop(held);
    }
}

#[tokio::test]
async fn a_command_and_what_it_started_end_when_nobody_holds_it() {
    let dir = std::env::temp_dir().join(format!("highwater-roll-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("made");
    for (name, command) in [
        ("own", "echo $$ > {}; sleep 600"),
        ("child", "sh -c 'echo $$ > {}; exec sleep 600'; true"),
        (
            "stubborn",
            "trap '' TERM; sh -c 'echo $$ > {}; exec sleep 600'",
        ),
    ] {
        let file = dir.join(name);
        let command = command.replace("{}", &file.display().to_string());
        let mut child = start(&command).expect("started");
        let pid = number_in(&file).await;
        assert!(runs(pid));
        drop(child.stdin.take());
        let ended = timeout(Duration::from_secs(20), child.wait()).await;
        ended.expect("in time").expect("ended");
        let gone = async {
            while runs(pid) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.expect(name);
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}
