//! Which commands may be written while brokers run different releases.

use highwater_proto::NodeId;

use super::*;
use crate::command::NewBroker;

fn broker(id: u32, version: &str) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("broker-{id}:9094"),
        incarnation: format!("life {id}"),
        rack: String::new(),
        version: version.to_owned(),
    }
}

fn cluster(versions: &[&str]) -> Image {
    let mut image = Image::default();
    let brokers = (1..).zip(versions);
    let command = MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: brokers.map(|(id, version)| broker(id, version)).collect(),
        shards_per_broker: 0,
    };
    assert_eq!(image.apply(&command), MetadataReply::Done);
    image
}

fn raise(level: MetadataLevel) -> MetadataCommand {
    MetadataCommand::RaiseLevel { level }
}

fn refusal(reply: MetadataReply) -> String {
    match reply {
        MetadataReply::Refused(refusal) => {
            assert!(!refusal.message.contains('\n'));
            refusal.message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn releases_and_what_they_know() {
    for (version, level) in [
        ("", MetadataLevel::FIRST),
        ("unknown", MetadataLevel::FIRST),
        ("0.0.9", MetadataLevel::FIRST),
        ("0.1.0", MetadataLevel::SIZED),
        ("0.1.0-rc1 (abc)", MetadataLevel::SIZED),
        ("0.10.0", MetadataLevel::LATEST),
    ] {
        assert_eq!(MetadataLevel::of_release(version), level, "{version}");
    }
    assert!(release("0.9.3") < release("0.10.0"));
    let mut since = MetadataLevel::SINCE.to_vec();
    since.sort_by_key(|(level, version)| (*level, release(version)));
    assert_eq!(since, MetadataLevel::SINCE, "rising, both of them");
    let levels: Vec<u32> = since.iter().map(|(level, _)| level.0).collect();
    assert_eq!(levels, (1..=MetadataLevel::LATEST.0).collect::<Vec<_>>());
    let own = MetadataLevel::of_release(env!("CARGO_PKG_VERSION"));
    assert_eq!(own, MetadataLevel::LATEST, "this release is in the list");
}

#[test]
fn the_level_rises_when_the_last_broker_knows_it_and_older_ones_stay_out_then() {
    let mut image = cluster(&["0.1.0", "0.0.9", ""]);
    assert_eq!(image.level_to_raise(), None);
    let why = refusal(image.apply(&raise(MetadataLevel::GATED)));
    assert!(
        why.contains("broker 2") && why.contains("\"0.0.9\"") && why.contains("0.1.0"),
        "{why}"
    );
    let upgraded = |id| MetadataCommand::RegisterBroker(broker(id, "0.2.0"));
    image.apply(&upgraded(2));
    assert_eq!(
        image.level_to_raise(),
        None,
        "broker 3 has not said anything yet"
    );
    image.apply(&upgraded(3));
    assert_eq!(image.level_to_raise(), Some(MetadataLevel::LATEST));
    assert_eq!(image.level(), MetadataLevel::FIRST);
    for _ in 0..2 {
        let raised = image.apply(&raise(MetadataLevel::GATED));
        assert_eq!(
            (raised, image.level()),
            (MetadataReply::Done, MetadataLevel::GATED)
        );
    }
    assert_eq!(image.level_to_raise(), Some(MetadataLevel::LATEST));
    // Never lowered.
    image.apply(&raise(MetadataLevel::FIRST));
    assert_eq!(image.level(), MetadataLevel::GATED);
    let before = image.clone();
    let old = MetadataCommand::RegisterBroker(broker(3, "0.0.9"));
    let why = refusal(image.apply(&old));
    assert!(
        why.contains("broker 3") && why.contains("release 0.1.0"),
        "{why}"
    );
    assert_eq!(image, before);
}

#[test]
fn a_command_of_a_later_level_is_refused_until_then() {
    let mut image = cluster(&["0.1.0", "0.0.9"]);
    let topic = MetadataCommand::AllocateProducerIds { count: 1 };
    assert_eq!(
        image.admits(&topic),
        Ok(()),
        "what all know is never refused"
    );
    let why = image
        .has_level(MetadataLevel::GATED)
        .expect_err("too early");
    assert!(
        why.message.contains("broker 2") && why.message.contains("upgrade"),
        "{why:?}"
    );
    image.apply(&MetadataCommand::RegisterBroker(broker(2, "0.1.0")));
    let why = image
        .has_level(MetadataLevel::GATED)
        .expect_err("not raised yet");
    assert_eq!(why.code, ErrorCode::ClusterNotReady);
    image.apply(&raise(MetadataLevel::GATED));
    assert_eq!(image.has_level(MetadataLevel::GATED), Ok(()));
}

#[test]
fn a_level_of_a_later_release_is_no_command_of_this_one() {
    let later = MetadataLevel(MetadataLevel::LATEST.0 + 1);
    let error = MetadataCommand::decode(&raise(later).encode()).expect_err("unknown");
    let named = format!("level {later}");
    assert!(error.to_string().contains(&named), "{error}");
    let mut image = cluster(&["0.1.0"]);
    image.level = later;
    let error = Image::decode_snapshot(&image.encode_snapshot()).expect_err("unknown");
    assert!(error.to_string().contains(&named), "{error}");
}
