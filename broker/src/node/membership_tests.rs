//! Who is let in, by an image that is up to date and by one that is not.

use highwater_metadata::{Image, MetadataCommand, NewBroker, PlanKind};

use super::*;

fn broker(id: u32, incarnation: &str) -> NewBroker {
    NewBroker {
        id: NodeId(id),
        address: format!("b{id}:9094"),
        incarnation: incarnation.to_owned(),
        rack: String::new(),
        version: "0.1.0".to_owned(),
    }
}

/// Broker 3 of cluster `c`, whose disk is new since then, as it has heard of the cluster's founding alone.
fn behind() -> Membership {
    let mut image = Image::default();
    image.apply(&MetadataCommand::CreateCluster {
        cluster_id: "c".to_owned(),
        brokers: vec![broker(1, "i1"), broker(2, "i2"), broker(3, "old")],
        shards_per_broker: 0,
    });
    let cluster = Arc::new(Cluster::default());
    cluster.publish(Arc::new(image));
    let identity = Identity {
        format_version: FORMAT_VERSION,
        node_id: 3,
        incarnation: "new".to_owned(),
        cluster_id: Some("c".to_owned()),
        founders: Vec::new(),
        initiator: false,
    };
    Membership::new(identity, cluster)
}

fn hello(node: u32, cluster: &str, incarnation: &str) -> HelloRequest {
    HelloRequest {
        format_version: FORMAT_VERSION,
        node_id: node,
        cluster_id: cluster.to_owned(),
        incarnation: incarnation.to_owned(),
        ..HelloRequest::default()
    }
}

#[test]
fn a_broker_does_not_refuse_itself_before_it_has_heard_of_its_new_disk() {
    assert_eq!(behind().refusal(&hello(3, "c", "new")), "");
}

#[test]
fn whoever_was_taken_in_meanwhile_is_heard() {
    let behind = behind();
    assert_eq!(behind.admit("c", NodeId(2), "i2"), Ok(()));
    assert_eq!(behind.admit("c", NodeId(2), "replaced since"), Ok(()));
    assert_eq!(behind.admit("c", NodeId(4), "came since"), Ok(()));
}

#[test]
fn an_empty_disk_is_refused_and_so_is_one_of_another_cluster() {
    let behind = behind();
    let wiped = behind.refusal(&hello(2, "", "wiped"));
    assert!(wiped.contains("another data directory"), "{wiped}");
    assert!(behind.admit("", NodeId(2), "wiped").is_err());
    assert!(behind.admit("", NodeId(4), "unknown").is_err());
    assert!(behind.admit("other", NodeId(2), "i2").is_err());
}

#[test]
fn a_disk_that_was_given_up_is_refused_for_ever() {
    let behind = behind();
    let mut image = Image::clone(&behind.cluster.image());
    image.apply(&MetadataCommand::StartPlan {
        kind: PlanKind::Replace(NodeId(2)),
        parallel: 1,
        accept_loss: true,
    });
    assert!(image.is_retired("i2"));
    behind.cluster.publish(Arc::new(image));
    assert!(behind.admit("c", NodeId(2), "i2").is_err());
    let refusal = behind.refusal(&hello(2, "c", "i2"));
    assert!(refusal.contains("was replaced or removed"), "{refusal}");
}
