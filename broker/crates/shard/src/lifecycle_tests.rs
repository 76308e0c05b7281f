//! Partitions that come, change and go, by the rules of each level, against a model.

use std::collections::BTreeMap;

use highwater_proto::{Offset, TimestampMs, TopicPartition};
use proptest::prelude::*;

use crate::test_support::{Driver, batch, tp};
use crate::{
    AppendRequest, CommandRefusal, Effect, EntryContext, FeatureLevel, PartitionConfig,
    ShardCommand, ShardReply, ShardState,
};

fn settings(version: u64, retention_ms: Option<u64>) -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 400,
        version,
        retention_ms,
        ..PartitionConfig::default()
    }
}

fn configure(config: PartitionConfig) -> ShardCommand {
    ShardCommand::ConfigurePartition { tp: tp(0), config }
}

fn trim(log_start: u64, config_version: Option<u64>) -> ShardCommand {
    ShardCommand::TrimLog {
        tp: tp(0),
        log_start: Offset(log_start),
        config_version,
    }
}

fn raise(level: FeatureLevel) -> ShardCommand {
    ShardCommand::RaiseFeatureLevel { level }
}

fn at_level_3() -> Driver {
    let mut driver = Driver::new();
    driver.apply(raise(FeatureLevel::TOPICS));
    driver
}

#[test]
fn below_level_3_nothing_is_kept_that_an_older_release_would_drop() {
    let mut driver = Driver::new();
    driver.apply(raise(FeatureLevel::GROUPS));
    let kept = settings(0, None);
    let effect = Effect::Configured {
        tp: tp(0),
        config: kept,
    };
    let (reply, effects) = driver.apply(configure(settings(7, Some(1000))));
    assert_eq!((reply, effects), (ShardReply::Done, vec![effect]));
    let create = ShardCommand::CreatePartition {
        tp: tp(1),
        config: settings(7, Some(1000)),
    };
    driver.apply(create.clone());
    assert_eq!(driver.state.partition(tp(1)).expect("made").config, kept);
    // The same command again is the same partition.
    assert_eq!(driver.apply(create), (ShardReply::Done, vec![]));
    // A version that nobody keeps refuses nothing.
    driver.append(batch(None, 3));
    let trimmed = ShardReply::Trimmed {
        log_start: Offset(1),
    };
    assert_eq!(driver.apply(trim(1, Some(9))).0, trimmed);
    driver.restart();
}

#[test]
fn older_settings_never_replace_newer_ones() {
    let mut driver = at_level_3();
    driver.apply(configure(settings(2, Some(1000))));
    let stale = driver.apply(configure(settings(1, None)));
    assert_eq!(stale, (ShardReply::Done, vec![]));
    let config = driver.state.partition(tp(0)).expect("made").config;
    assert_eq!(config, settings(2, Some(1000)));
    driver.restart();
}

#[test]
fn what_retention_decided_by_other_settings_takes_no_effect() {
    let mut driver = at_level_3();
    driver.append(batch(None, 10));
    driver.apply(configure(settings(1, None)));
    let refused = ShardReply::Refused(CommandRefusal::OtherConfiguration);
    assert_eq!(driver.apply(trim(5, Some(0))), (refused, vec![]));
    let trimmed = ShardReply::Trimmed {
        log_start: Offset(5),
    };
    assert_eq!(driver.apply(trim(5, Some(1))).0, trimmed);
    // Who deletes records does not ask for settings.
    let trimmed = ShardReply::Trimmed {
        log_start: Offset(6),
    };
    assert_eq!(driver.apply(trim(6, None)).0, trimmed);
}

#[test]
fn an_emptied_log_begins_a_new_segment_and_gives_no_offset_twice() {
    for (level, begins) in [(FeatureLevel::TOPICS, true), (FeatureLevel::GROUPS, false)] {
        let mut driver = Driver::new();
        driver.apply(raise(level));
        driver.append(batch(None, 3));
        driver.apply(trim(3, None));
        driver.restart();
        let (_, effect) = driver.append(batch(None, 2));
        let effect = effect.expect("appended");
        assert_eq!(effect.new_segment, begins, "{level}");
        assert_eq!(effect.base_offset, Offset(3));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Create(u32, u64),
    Delete(u32),
    Configure(u32, u64),
    /// Percent of the log, and the version that it was decided by.
    Trim(u32, u64, Option<u64>),
    Append(u32, u32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..3_u32;
    let version = 0..4_u64;
    let step = prop_oneof![
        2 => (partition.clone(), version.clone()).prop_map(|(p, v)| Step::Create(p, v)),
        1 => partition.clone().prop_map(Step::Delete),
        3 => (partition.clone(), version.clone()).prop_map(|(p, v)| Step::Configure(p, v)),
        4 => (partition.clone(), 0..120_u64, proptest::option::of(version))
            .prop_map(|(p, to, v)| Step::Trim(p, to, v)),
        6 => (partition, 1..5_u32).prop_map(|(p, n)| Step::Append(p, n)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What a partition should be: start, end, version of its settings.
type Model = BTreeMap<TopicPartition, (u64, u64, u64)>;

fn command(step: &Step, model: &Model) -> Option<ShardCommand> {
    let config = |version| settings(version, Some(version * 1000));
    Some(match *step {
        Step::Create(p, version) => ShardCommand::CreatePartition {
            tp: tp(p),
            config: config(version),
        },
        Step::Delete(p) => ShardCommand::DeletePartition { tp: tp(p) },
        Step::Configure(p, version) => ShardCommand::ConfigurePartition {
            tp: tp(p),
            config: config(version),
        },
        Step::Trim(p, percent, config_version) => {
            let end = model.get(&tp(p)).map_or(10, |known| known.1);
            ShardCommand::TrimLog {
                tp: tp(p),
                log_start: Offset(end * percent / 100),
                config_version,
            }
        }
        Step::Append(p, records) => ShardCommand::Append {
            batches: vec![AppendRequest {
                tp: tp(p),
                append_time: TimestampMs(1000),
                batch: batch(None, records),
            }],
        },
        Step::Restart => return None,
    })
}

fn follow(model: &mut Model, gone: &mut Vec<TopicPartition>, command: &ShardCommand) {
    match command {
        ShardCommand::CreatePartition { tp, config } if !gone.contains(tp) => {
            model.entry(*tp).or_insert((0, 0, config.version));
        }
        ShardCommand::DeletePartition { tp } => {
            model.remove(tp);
            gone.push(*tp);
        }
        ShardCommand::ConfigurePartition { tp, config } => {
            if let Some(known) = model.get_mut(tp) {
                known.2 = known.2.max(config.version);
            }
        }
        ShardCommand::TrimLog {
            tp,
            log_start,
            config_version,
        } => {
            if let Some(known) = model.get_mut(tp)
                && log_start.0 <= known.1
                && config_version.is_none_or(|version| version == known.2)
            {
                known.0 = known.0.max(log_start.0);
            }
        }
        ShardCommand::Append { batches } => {
            for request in batches {
                if let Some(known) = model.get_mut(&request.tp) {
                    let header = highwater_proto::batch::BatchHeader::parse(&request.batch);
                    known.1 += u64::from(header.expect("own batch").record_count);
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn random_lives_of_partitions_obey_the_model_on_both_replicas(steps in steps()) {
        let (mut one, mut other) = (ShardState::new(), ShardState::new());
        let (mut model, mut gone) = (Model::new(), Vec::new());
        let mut commands = vec![raise(FeatureLevel::TOPICS)];
        for (position, step) in (1..).zip(&steps) {
            commands.extend(command(step, &model));
            if matches!(step, Step::Restart) {
                let bytes = other.encode_snapshot();
                other = ShardState::decode_snapshot(&bytes).expect("own snapshot");
            }
            for (n, command) in (0..).zip(commands.drain(..)) {
                follow(&mut model, &mut gone, &command);
                let at = EntryContext { position: position * 2 + n, leadership: 1 };
                let (mut effects, mut others) = (Vec::new(), Vec::new());
                let decoded = ShardCommand::decode(&command.encode()).expect("own command");
                let reply = one.apply(at, command, &mut effects);
                prop_assert_eq!(other.apply(at, decoded, &mut others), reply.clone());
                prop_assert_eq!(effects, others);
                prop_assert_eq!(ShardReply::decode(&reply.encode()), Ok(reply));
            }
            prop_assert_eq!(one.encode_snapshot(), other.encode_snapshot());
            let facts: Model = one
                .partitions()
                .map(|(tp, f)| (tp, (f.log_start.0, f.next_offset.0, f.config.version)))
                .collect();
            prop_assert_eq!(&facts, &model);
        }
    }
}
