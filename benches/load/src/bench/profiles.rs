//! Workloads that come with the program: the standard ones of the OpenMessaging Benchmark scaled
//! to two cores, and those that this project's aims name.

use std::fmt::Write as _;

use anyhow::Context as _;

use super::workload::Workload;

/// The profile of a run that names none.
pub const DEFAULT: &str = "1-topic-16-partitions-1kb";

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../profiles/", $name, ".yaml")))),*]
    };
}

/// Name and text of each.
const ALL: &[(&str, &str)] = &profiles![
    "1-topic-1-partition-100b",
    "1-topic-1-partition-1kb",
    "1-topic-16-partitions-1kb",
    "1-topic-16-partitions-100b",
    "1-topic-16-partitions-64kb",
    "1-topic-16-partitions-1kb-open",
    "1-topic-100-partitions-1kb",
    "1-topic-1000-partitions-1kb",
    "1-topic-10000-partitions-1kb",
    "10-topics-16-partitions-1kb",
    "100-topics-1-partition-1kb",
    "backlog-1gb",
    "catch-up",
    "keyed-zipf",
    "keyed-round-robin",
    "one-at-a-time",
    "order-256b",
    "order-1kb",
    "400-producers",
    "leader-killed",
    "past-retention",
];

/// The text of a profile.
///
/// # Errors
/// When there is none of that name.
pub fn text(name: &str) -> anyhow::Result<&'static str> {
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, text) =
        found.with_context(|| format!("no profile {name}; `bench profiles` lists them"))?;
    Ok(text)
}

/// A profile.
///
/// # Errors
/// When there is none of that name.
pub fn find(name: &str) -> anyhow::Result<Workload> {
    Workload::parse(text(name)?).with_context(|| name.to_owned())
}

/// A line for each.
///
/// # Errors
/// Never, as the tests show.
pub fn list() -> anyhow::Result<String> {
    let mut out = String::new();
    for (name, _) in ALL {
        writeln!(out, "{name:<34} {}", find(name)?.name)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_can_be_run_and_has_no_unknown_key() {
        for (name, _) in ALL {
            let workload = find(name).expect(name);
            assert_eq!(workload.ignored(), Vec::<String>::new(), "{name}");
            assert!(!workload.name.is_empty(), "{name}");
            assert!(workload.test_duration_minutes <= 1.0, "{name}");
        }
        assert!(find(DEFAULT).is_ok() && find("nonsense").is_err());
    }
}
