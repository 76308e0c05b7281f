//! Which crate may depend on which, and which must document a format.

use std::fs;
use std::path::Path;

use figment::Provider;
use figment::providers::{Format, Toml};
use figment::value::Dict;

use super::tree::Manifest;

/// Every crate of the workspace with the crates of the workspace that it may name, in any kind of
/// dependency. Only what stands here is allowed.
const EDGES: [(&str, &[&str]); 18] = [
    ("highwater-proto", &[]),
    ("highwater-mutant", &[]),
    ("highwater-env", &["mutant"]),
    ("highwater-checker", &[]),
    // Its tests compare it with the simulated disk.
    ("highwater-powerfs", &["env"]),
    ("highwater-wal", &["env", "mutant", "proto"]),
    ("highwater-segment", &["env", "mutant", "proto"]),
    ("highwater-raft", &["wal", "env", "mutant", "proto"]),
    ("highwater-shard", &["mutant", "proto"]),
    ("highwater-metadata", &["mutant", "proto"]),
    ("highwater-client", &["mutant", "proto"]),
    ("highwater-order-demo", &["client", "checker", "proto"]),
    // The binary's verbs may use client, order-demo and the libraries of jepsen and benches.
    (
        "highwater-broker",
        &[
            "env",
            "mutant",
            "wal",
            "segment",
            "raft",
            "shard",
            "metadata",
            "proto",
            "client",
            "order-demo",
            "checker",
            "jepsen",
            "powerfs",
            "load",
        ],
    ),
    (
        "highwater-sim",
        &[
            "broker", "env", "metadata", "segment", "mutant", "proto", "client", "checker",
        ],
    ),
    // Micro benches measure single layers, so they name them; they are no program of their own.
    (
        "highwater-micro",
        &["proto", "env", "wal", "segment", "shard"],
    ),
    ("highwater-load", &["client", "proto", "checker"]),
    ("highwater-limit", &["load"]),
    ("highwater-jepsen", &["client", "checker", "powerfs"]),
];

/// Crates outside the workspace that only one of ours may name.
const SOLE_USERS: [(&str, &str); 4] = [
    ("openraft", "highwater-raft"),
    ("turmoil", "highwater-sim"),
    ("memmap2", "highwater-segment"),
    ("fuser", "highwater-powerfs"),
];

/// Folders that define a format on disk or on the wire.
const FORMATS: [&str; 8] = [
    "proto",
    "broker/crates/wal",
    "broker/crates/segment",
    "broker/crates/raft",
    "broker/crates/shard",
    "broker/crates/metadata",
    "broker/src/node",
    "broker/src/runtime",
];

const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn parse(manifest: &Manifest) -> Dict {
    let profiles = Toml::string(&manifest.text)
        .data()
        .expect("a manifest is TOML");
    profiles.into_values().next().unwrap_or_default()
}

fn name_of(manifest: &Dict) -> Option<String> {
    let package = manifest.get("package")?.as_dict()?;
    Some(package.get("name")?.as_str()?.to_owned())
}

/// Every crate that a manifest names in any kind of dependency.
fn dependencies(manifest: &Dict) -> Vec<String> {
    let targets = manifest.get("target").and_then(|target| target.as_dict());
    let for_targets = targets
        .into_iter()
        .flat_map(Dict::values)
        .filter_map(|t| t.as_dict());
    std::iter::once(manifest)
        .chain(for_targets)
        .flat_map(|table| TABLES.iter().filter_map(|name| table.get(*name)?.as_dict()))
        .flat_map(|table| table.keys().cloned())
        .collect()
}

/// Dependencies that the table above does not allow.
pub fn edges(manifest: &Manifest) -> Vec<String> {
    let parsed = parse(manifest);
    let Some(name) = name_of(&parsed) else {
        return vec![format!("{}: the package has no name", manifest.path)];
    };
    // Crates outside the workspace (fuzz targets, comparisons) depend on what they examine.
    if parsed.contains_key("workspace") {
        return Vec::new();
    }
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "{}: {name} has no entry in tidy's table of edges",
            manifest.path
        )];
    };
    let mut violations = Vec::new();
    for dependency in dependencies(&parsed) {
        let ours = dependency.strip_prefix("highwater-");
        if ours.is_some_and(|short| !allowed.contains(&short)) {
            violations.push(format!(
                "{}: {name} may not use {dependency}",
                manifest.path
            ));
        }
        let sole = SOLE_USERS
            .iter()
            .find(|(theirs, user)| *theirs == dependency && *user != name);
        if let Some((theirs, user)) = sole {
            violations.push(format!("{}: only {user} may use {theirs}", manifest.path));
        }
    }
    violations
}

/// Entries of the table for crates that do not exist.
pub fn missing(manifests: &[Manifest]) -> Vec<String> {
    let names: Vec<String> = manifests
        .iter()
        .filter_map(|m| name_of(&parse(m)))
        .collect();
    EDGES
        .iter()
        .filter(|(name, _)| !names.iter().any(|found| found == name))
        .map(|(name, _)| format!("{name} is in tidy's table of edges but does not exist"))
        .collect()
}

/// Folders with a format that is not written down, or that has no golden file.
pub fn formats(root: &Path) -> Vec<String> {
    let mut violations = Vec::new();
    for folder in FORMATS {
        let home = root.join(folder);
        let written = fs::read_to_string(home.join("FORMAT.md")).unwrap_or_default();
        if written.trim().is_empty() {
            violations.push(format!("{folder}/FORMAT.md is missing"));
        }
        if !holds_a_file(&home.join("golden")) && !holds_a_file(&home.join("tests/golden")) {
            violations.push(format!("{folder} has no golden files"));
        }
    }
    violations
}

fn holds_a_file(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_file())
            || entry.file_type().is_ok_and(|kind| kind.is_dir()) && holds_a_file(&entry.path())
    })
}
