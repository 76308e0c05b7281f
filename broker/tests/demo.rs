//! `highwater demo` from outside: a run with faults passes, and a run with a service that is broken
//! on purpose does not.

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

/// One run after the other: each has a dozen and a half of processes.
static ALONE: Mutex<()> = Mutex::new(());

struct Run {
    output: Output,
    json: Value,
    _directory: TempDir,
}

impl Run {
    fn text(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
    }

    fn violations(&self, kind: &str) -> u64 {
        self.json["violations"][kind]["count"].as_u64().unwrap_or(0)
    }
}

fn demo(arguments: &[&str]) -> Run {
    demo_under(&[], arguments)
}

fn demo_under(variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = TempDir::new().expect("a directory");
    let report = directory.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .envs(variables.iter().copied())
        .arg("demo")
        .args(arguments)
        .arg("--json")
        .arg(&report)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let json = std::fs::read(&report).unwrap_or_default();
    Run {
        json: serde_json::from_slice(&json).unwrap_or_default(),
        output,
        _directory: directory,
    }
}

/// Which part of all orders was accepted by the end of the second in which a fault came.
fn acknowledged_at(json: &Value, fault: &Value) -> f64 {
    let second = fault["at_s"].as_f64().expect("a time").floor();
    let samples = json["samples"].as_array().expect("samples");
    let sample = samples
        .iter()
        .find(|sample| sample["second"].as_f64() == Some(second));
    let sample = sample.unwrap_or_else(|| panic!("no second {second} in {samples:?}"));
    let count = |value: &Value| value.as_f64().expect("a count");
    count(&sample["acknowledged"]) / count(&json["orders"])
}

#[test]
fn orders_survive_the_death_of_a_broker_and_of_services() {
    let run = demo(&["--count", "400", "--rate", "25", "--replay-at", "5"]);
    assert_eq!(run.output.status.code(), Some(0), "{}", run.text());
    let json = &run.json;
    assert_eq!(json["acknowledged"], 400, "{}", run.text());
    for zero in [
        "lost",
        "duplicated",
        "out_of_order",
        "phantom",
        "price_mismatch",
    ] {
        assert_eq!(json[zero], 0, "{zero}");
    }
    assert_eq!(json["expected_total_cents"], json["priced_total_cents"]);
    for figure in [&json["failover_ms"], &json["orders_per_s"]] {
        assert!(figure.as_f64().is_some_and(|figure| figure > 0.0));
    }
    for quantile in ["p50", "p99", "p999"] {
        let ms = json["ack_ms"][quantile].as_f64();
        assert!(ms.is_some_and(|ms| ms > 0.0), "{quantile}: {ms:?}");
    }
    assert!(json["duration_s"].as_f64().is_some_and(|s| s >= 15.0));
    // Of every partition of every topic a copy at each of three brokers was read.
    assert!(
        json["replica_copies"].as_u64() >= Some(3 * 6),
        "{}",
        run.text()
    );
    let faults = json["modes"][0]["faults"].as_array().expect("faults");
    let share = acknowledged_at(json, &faults[1]);
    assert_eq!(faults[1]["name"], "broker-leader");
    assert!((0.2..=0.7).contains(&share), "killed after {share} of all");
    assert_eq!(faults.len(), 4);
    assert!(
        faults.iter().all(|fault| fault["active"] == true),
        "{faults:?}"
    );
    assert_eq!(json["modes"][0]["verdict"]["parked"], 10);
    let then = json["modes"][0]["replay"]["orders"]
        .as_object()
        .expect("a past");
    assert!((1..400).contains(&then.len()), "{}", then.len());
}

/// Four accounts as the public table has them, one of a customer who was never billed. Whatever they
/// take, all pay the same.
const ACCOUNTS: &str = "\
customerID,gender,SeniorCitizen,Partner,Dependents,tenure,PhoneService,MultipleLines,InternetService,\
OnlineSecurity,OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,Contract,\
PaperlessBilling,PaymentMethod,MonthlyCharges,TotalCharges,Churn
0001-AAAAA,Female,0,Yes,No,1,No,No phone service,DSL,No,Yes,No,No,No,No,Month-to-month,Yes,\
Electronic check,70.35,70.35,No
0002-BBBBB,Male,0,No,No,34,Yes,No,Fiber optic,Yes,No,Yes,No,No,Yes,One year,No,Mailed check,70.35,3024.3,No
0003-CCCCC,Male,1,No,No,0,Yes,Yes,No,No internet service,No internet service,No internet service,\
No internet service,No internet service,No internet service,Two year,No,Mailed check,70.35, ,No
0004-DDDDD,Female,0,No,No,8,Yes,Yes,Fiber optic,No,No,No,No,No,No,Month-to-month,Yes,\
Bank transfer (automatic),70.35,592,Yes
";

/// What each of them pays, in cents.
const CHARGE: i64 = 7_035;

#[test]
fn a_table_of_accounts_is_ordered_and_priced_to_the_cent() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("accounts.csv");
    std::fs::write(&path, ACCOUNTS).expect("written");
    let path = path.to_str().expect("a name");
    let run = demo(&[
        "--orders",
        path,
        "--count",
        "40",
        "--rate",
        "20",
        "--no-kill",
    ]);
    assert_eq!(run.output.status.code(), Some(0), "{}", run.text());
    let json = &run.json;
    assert_eq!(
        (&json["acknowledged"], &json["lost"]),
        (&40.into(), &0.into())
    );
    // Some are declined or cancelled, as the seed says; nobody pays for those.
    let priced = json["priced"].as_i64().expect("a count");
    assert!((30..=40).contains(&priced), "{priced}");
    assert_eq!(json["expected_total_cents"], priced * CHARGE);
    assert_eq!(json["priced_total_cents"], priced * CHARGE);
    assert_eq!(json["source"], "4 from accounts.csv");

    let broken = ACCOUNTS.replace("70.35,70.35", "70.35x,70.35");
    std::fs::write(path, broken).expect("written");
    let run = demo(&["--orders", path]);
    assert_eq!(run.output.status.code(), Some(2), "{}", run.text());
    let said = run.text();
    assert!(
        said.contains("accounts.csv") && said.contains("line 2"),
        "{said}"
    );
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

#[test]
fn an_inventory_without_its_inbox_is_found_out() {
    let faults = ["--fault", "kill-inventory@3", "--fault", "kill-inventory@6"];
    let mutant = ["--mutant", "inventory-without-inbox"];
    let run = demo(&[&["--count", "250", "--rate", "25"][..], &faults, &mutant].concat());
    assert_eq!(run.output.status.code(), Some(1), "{}", run.text());
    assert!(run.violations("stock") > 0, "{}", run.text());
}

#[test]
fn a_provider_that_takes_money_twice_is_found_out() {
    let mutant = ["--no-kill", "--mutant", "double-charge"];
    let run = demo(&[&["--count", "300", "--rate", "50"][..], &mutant].concat());
    assert_eq!(run.output.status.code(), Some(1), "{}", run.text());
    assert!(run.violations("effect_twice") > 0, "{}", run.text());
}

/// The catalogue prices from its topic: when that is wrong, so is what is invoiced.
#[test]
fn a_wrong_price_in_the_topic_of_the_catalogue_is_found_out() {
    let mutant = ["--no-kill", "--mutant", "wrong-price"];
    let run = demo(&[&["--count", "100", "--rate", "50"][..], &mutant].concat());
    assert_eq!(run.output.status.code(), Some(1), "{}", run.text());
    let (wrong, priced) = (run.violations("price_mismatch"), &run.json["priced"]);
    assert!(
        wrong > 0 && *priced == wrong,
        "{wrong} of {priced}: {}",
        run.text()
    );
}

/// A burst puts the validators behind; workers that come and go for it lose nothing and do nothing
/// twice.
#[test]
fn workers_that_are_started_on_lag_share_the_load() {
    let burst = [
        "--burst",
        "8x@2s",
        "--scale-lag",
        "20",
        "--workers",
        "3",
        "--no-kill",
    ];
    let run = demo(&[&["--count", "900", "--rate", "25"][..], &burst].concat());
    assert_eq!(run.output.status.code(), Some(0), "{}", run.text());
    let scaled = run.json["modes"][0]["scaled"].as_array().expect("a list");
    let handled = scaled.iter().filter(|one| one["assigned_ms"].is_f64());
    assert!(handled.count() > 0, "{}", run.text());
    assert_eq!(run.json["acknowledged"], 900, "{}", run.text());
}

/// `cargo test --profile mutant --features mutant -p highwater-broker --test demo majority`: the feature
/// builds under that profile alone. The brokers of the run inherit the variable.
#[cfg(feature = "mutant")]
#[test]
fn brokers_that_do_not_wait_for_a_majority_are_found_out() {
    let faults = [3, 9, 15].map(|second| format!("--fault=broker-leader@{second}"));
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let variable = [("HIGHWATER_MUTANT", "ack-at-leader-alone")];
    let load = ["--rate", "150", "--count", "3000"];
    let run = demo_under(&variable, &[&load[..], &faults].concat());
    assert_eq!(run.output.status.code(), Some(1), "{}", run.text());
    let violations = run.json["violations"].as_object();
    assert!(
        violations.is_some_and(|kinds| !kinds.is_empty()),
        "{}",
        run.text()
    );
}

#[test]
fn the_baselines_keep_the_same_promises() {
    for mode in ["monolith", "rest"] {
        let run = demo(&["--count", "200", "--rate", "40", "--mode", mode]);
        assert_eq!(run.output.status.code(), Some(0), "{mode}: {}", run.text());
        let modes = run.json["modes"].as_array().expect("modes");
        assert_eq!(modes.len(), 2, "{mode}");
        for one in modes {
            assert_eq!(one["verdict"]["acknowledged"], 200, "{}", one["mode"]);
        }
        if mode == "monolith" {
            // Six partitions of its log, three copies each: what is replicated was looked at.
            assert_eq!(modes[1]["mode"], "monolith-replicated");
            assert_eq!(modes[1]["verdict"]["replica_copies"], 18);
        }
    }
}

#[test]
fn a_series_says_what_is_not_measured_yet() {
    let directory = TempDir::new().expect("a directory");
    let results = directory.path().join("series.jsonl");
    let results = results.to_str().expect("a name");
    let run = demo(&["--full", "--blocks", "0", "--results", results]);
    assert_eq!(run.output.status.code(), Some(0), "{}", run.text());
    assert!(run.text().contains("not measured yet"), "{}", run.text());
    assert_eq!(run.json, serde_json::json!([]));
}
