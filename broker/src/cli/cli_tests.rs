//! The command line as a whole: consistent, and each option where it belongs.

use super::*;

fn parsed(line: &str) -> Result<(Command, GlobalOptions), clap::Error> {
    let matches = command_line().try_get_matches_from(line.split(' '))?;
    parse(&matches)
}

#[test]
fn the_definition_is_consistent() {
    command_line().debug_assert();
}

#[test]
fn every_verb_has_a_description_of_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    for verb in command_line().get_subcommands() {
        let about = verb
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            !about.is_empty() && seen.insert(about),
            "{}",
            verb.get_name()
        );
    }
}

#[test]
fn options_of_the_client_belong_to_its_verbs_at_any_depth() {
    for line in [
        "highwater topic list --brokers a:1",
        "highwater topic --brokers a:1 list",
        "highwater cluster status --brokers a:1",
        "highwater produce orders --brokers a:1",
        "highwater consume orders --group g --brokers a:1",
        "highwater group reset g --to -10 --brokers a:1",
        "highwater group seek g --to @-1h --execute --brokers a:1",
        "highwater dlq redrive g --all --rate 10 --brokers a:1",
        "highwater dlq redrive g --since @-15m --brokers a:1",
    ] {
        let (command, global) = parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(matches!(command, Command::Client(_)), "{line}");
        assert_eq!(global.brokers.as_deref(), Some("a:1"), "{line}");
    }
}

#[test]
fn dev_takes_one_broker_or_three() {
    for (line, valid) in [
        ("highwater dev", true),
        ("highwater dev --brokers 1", true),
        ("highwater dev --brokers 3 --data-dir /d", true),
        ("highwater dev --brokers 2", false),
        ("highwater server --brokers a:1", false),
        (
            "highwater server --node-id 1 --set wal.file_bytes=1MiB",
            true,
        ),
        ("highwater demo --count 0", false),
        // What to redrive is said, not guessed.
        ("highwater dlq redrive g", false),
        ("highwater dlq redrive g --all --key k", false),
        ("highwater consume orders --group g --partitions 1", false),
        ("highwater consume orders --session-timeout 5", false),
        ("highwater demo --rate 500 --json r.json", true),
        ("highwater completion bash", true),
        ("highwater", false),
    ] {
        assert_eq!(parsed(line).is_ok(), valid, "{line}");
    }
}
