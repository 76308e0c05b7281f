//! The order of a roll, its command lines, and what it waits for.

use super::*;

fn broker(id: u32, address: &str) -> v1::Broker {
    v1::Broker {
        id,
        address: address.to_owned(),
        ..Default::default()
    }
}

fn cluster() -> v1::DescribeClusterResponse {
    v1::DescribeClusterResponse {
        brokers: vec![
            broker(3, "c:9094"),
            broker(1, "[::1]:9094"),
            broker(2, "b.example:9094"),
        ],
        metadata_leader: Some(1),
        ..Default::default()
    }
}

fn args(order: &[u32], exec: Option<&str>) -> RollArgs {
    RollArgs {
        order: order.to_vec(),
        exec: exec.map(str::to_owned),
        step_timeout: 1,
        dry_run: false,
    }
}

fn ids(steps: &[Step]) -> Vec<u32> {
    steps.iter().map(|step| step.broker).collect()
}

#[test]
fn everyone_has_a_turn_and_the_metadata_leader_the_last() {
    let steps = plan(&args(&[], None), &cluster()).expect("a plan");
    assert_eq!(ids(&steps), [2, 3, 1]);
    assert_eq!(steps[0].command, None);
    let steps = plan(&args(&[1, 3], None), &cluster()).expect("a plan");
    assert_eq!(ids(&steps), [1, 3]);
    assert_eq!(
        plan(&args(&[4], None), &cluster()),
        Err("there is no broker 4; `highwater cluster members` shows all".to_owned())
    );
    assert!(plan(&args(&[1, 1], None), &cluster()).is_err());
}

#[test]
fn commands_name_the_broker_and_what_is_left_can_be_pasted() {
    let args = args(&[], Some("ssh {host} restart '{id}' {address}"));
    let steps = plan(&args, &cluster()).expect("a plan");
    let commands: Vec<_> = steps
        .iter()
        .filter_map(|step| step.command.as_deref())
        .collect();
    assert_eq!(
        commands,
        [
            "ssh b.example restart '2' b.example:9094",
            "ssh c restart '3' c:9094",
            "ssh ::1 restart '1' [::1]:9094",
        ]
    );
    assert_eq!(
        rest(&args, &GlobalOptions::default(), &steps[1..]),
        r"highwater cluster rolling-restart 3 1 --step-timeout '1' --exec 'ssh {host} restart '\''{id}'\'' {address}'"
    );
    let there = GlobalOptions {
        brokers: Some("c:9094".to_owned()),
        ..GlobalOptions::default()
    };
    assert!(rest(&args, &there, &steps[2..]).contains(" 1 --brokers 'c:9094' --step-timeout"));
}

#[test]
fn an_address_never_becomes_a_command() {
    for address in [
        "a;reboot:1",
        "$(reboot):1",
        "a b:1",
        "-oProxyCommand=x:1",
        "`x`:1",
        "a\n:1",
    ] {
        assert!(
            filled("ssh {host}", &broker(1, address)).is_err(),
            "{address}"
        );
    }
}

fn verdict(broker: u32, started_at_ms: i64, reasons: &[&str]) -> v1::RestartVerdict {
    v1::RestartVerdict {
        broker,
        started_at_ms,
        present: true,
        safe: reasons.is_empty(),
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        ..Default::default()
    }
}

#[test]
fn one_goes_when_it_may_whatever_the_others_may() {
    let may_go = || Awaited::MayGo { absent_since: None };
    let verdicts = [verdict(1, 5, &[]), verdict(2, 5, &["a", "b"])];
    assert!(lacking(1, &mut may_go(), &verdicts).is_ok());
    let reason = lacking(2, &mut may_go(), &verdicts).expect_err("must stay");
    assert_eq!(reason, "a; and 1 more reasons");
    assert!(lacking(3, &mut may_go(), &verdicts).is_err());
}

#[test]
fn the_same_process_is_not_back_and_one_that_lags_is_not_whole() {
    let back = |before| Awaited::Back {
        before,
        gone: false,
    };
    let same = [verdict(1, 5, &[]), verdict(2, 9, &[])];
    let reason = lacking(1, &mut back(5), &same).expect_err("the old process");
    assert!(reason.contains("not been restarted"), "{reason}");
    let lags = [
        verdict(1, 6, &[]),
        verdict(2, 9, &["broker 1 lacks 9 entries"]),
    ];
    let reason = lacking(1, &mut back(5), &lags).expect_err("it lags");
    assert_eq!(reason, "broker 1 lacks 9 entries");
    // Its clock was set back meanwhile.
    let earlier = [verdict(1, 4, &[]), verdict(2, 9, &[])];
    assert!(lacking(1, &mut back(5), &earlier).is_ok());
    let mut away = same.clone();
    away[0].present = false;
    assert!(lacking(1, &mut back(0), &away).is_err());
}

#[test]
fn an_older_release_is_back_when_it_was_seen_away() {
    let mut awaited = Awaited::Back {
        before: 0,
        gone: false,
    };
    let mut verdicts = [verdict(1, 0, &[]), verdict(2, 0, &[])];
    assert!(lacking(1, &mut awaited, &verdicts).is_err());
    verdicts[0].present = false;
    assert!(lacking(1, &mut awaited, &verdicts).is_err());
    verdicts[0].present = true;
    assert!(lacking(1, &mut awaited, &verdicts).is_ok());
}

#[tokio::test(start_paused = true)]
async fn which_process_there_is_must_be_known_before_it_goes() {
    let mut awaited = Awaited::MayGo { absent_since: None };
    let mut verdicts = [verdict(1, 0, &[])];
    verdicts[0].present = false;
    assert!(lacking(1, &mut awaited, &verdicts).is_err());
    // It runs: the one that leads had not heard from it yet.
    verdicts[0].present = true;
    assert!(lacking(1, &mut awaited, &verdicts).is_ok());
    // It is down: it may be started.
    verdicts[0].present = false;
    assert!(lacking(1, &mut awaited, &verdicts).is_err());
    tokio::time::advance(HEARD_WITHIN).await;
    assert!(lacking(1, &mut awaited, &verdicts).is_ok());
}
