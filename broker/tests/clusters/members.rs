//! Members of consumer groups that speak the public protocol by themselves, as an SDK would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_proto::v1::groups_client::GroupsClient;
use highwater_proto::v1::{
    CommitOffsetsRequest, CommitOffsetsResponse, DescribeGroupRequest, DescribeGroupResponse,
    Error, ErrorCode, FetchOffsetsRequest, FindCoordinatorRequest, GroupHeartbeatRequest,
    GroupState, JoinGroupRequest, OffsetCommit,
};
use tonic::transport::Channel;

use super::fleet::{Fleet, eventually};

/// A partition by topic id and number.
pub type Place = (u64, u32);

/// A connection to whoever coordinates a group.
#[derive(Clone)]
pub struct Door {
    pub group: String,
    uris: Vec<String>,
}

/// Whether a call may succeed a moment later, elsewhere.
fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeader
            | ErrorCode::LeaderUnavailable
            | ErrorCode::ClusterNotReady
            | ErrorCode::ShuttingDown
            | ErrorCode::Overloaded
            | ErrorCode::TimedOut
            | ErrorCode::LeadershipLost
    )
}

impl Door {
    pub fn new(fleet: &Fleet, group: &str) -> Self {
        Self {
            group: group.to_owned(),
            uris: fleet
                .nodes()
                .into_iter()
                .map(|node| fleet.uri(node))
                .collect(),
        }
    }

    /// The broker that coordinates the group, as soon as one that lives says who it is.
    pub async fn coordinator(&self) -> u32 {
        eventually("a coordinator is named", async || {
            for uri in &self.uris {
                let Ok(mut client) = connect(uri).await else {
                    continue;
                };
                let request = FindCoordinatorRequest {
                    groups: vec![self.group.clone()],
                };
                let found = client.find_coordinator(request).await.ok()?.into_inner();
                if let Some(leader) = &found.coordinators[0].leader {
                    return Some(leader.broker_id);
                }
            }
            None
        })
        .await
    }

    /// Repeats a call until a coordinator has answered it for good.
    pub async fn call<T>(
        &self,
        mut attempt: impl AsyncFnMut(GroupsClient<Channel>) -> Result<(T, Option<Error>), tonic::Status>,
    ) -> Result<T, Error> {
        let mut next = 0;
        eventually(&format!("a call to group {}", self.group), async || {
            let uri = self.uris[next % self.uris.len()].clone();
            next += 1;
            let answered = match connect(&uri).await {
                Ok(client) => attempt(client).await,
                Err(_) => return None,
            };
            match answered {
                Ok((answer, None)) => Some(Ok(answer)),
                Ok((_, Some(error))) if is_passing(error.code()) => {
                    // The hint is followed by asking that broker next.
                    let hinted = error
                        .leader
                        .map(|leader| format!("http://{}", leader.address));
                    let at =
                        hinted.and_then(|uri| self.uris.iter().position(|known| *known == uri));
                    next = at.unwrap_or(next);
                    None
                }
                Ok((_, Some(error))) => Some(Err(error)),
                Err(_) => None,
            }
        })
        .await
    }

    pub async fn describe(&self) -> DescribeGroupResponse {
        let request = DescribeGroupRequest {
            group: self.group.clone(),
            without_lag: false,
        };
        let described = self.call(async |mut client| {
            let answer = client.describe_group(request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        described.await.expect("described")
    }

    pub async fn committed(&self) -> BTreeMap<Place, u64> {
        let request = FetchOffsetsRequest {
            group: self.group.clone(),
            partitions: Vec::new(),
        };
        let fetched = self.call(async |mut client| {
            let answer = client.fetch_offsets(request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        let offsets = fetched.await.expect("fetched").offsets.into_iter();
        offsets
            .map(|o| ((o.topic_id, o.partition), o.offset))
            .collect()
    }

    /// Waits until everyone holds what it should.
    pub async fn stable(&self, members: usize) -> DescribeGroupResponse {
        eventually("the group is stable", async || {
            let group = self.describe().await;
            let state = group.summary.as_ref().map(|summary| summary.state());
            (group.members.len() == members && state == Some(GroupState::Stable)).then_some(group)
        })
        .await
    }
}

async fn connect(uri: &str) -> Result<GroupsClient<Channel>, tonic::transport::Error> {
    let endpoint = Channel::from_shared(uri.to_owned()).expect("a uri");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2));
    let channel = endpoint.timeout(Duration::from_secs(10)).connect().await?;
    Ok(GroupsClient::new(channel))
}

/// A member, as it sees the world.
#[derive(Clone)]
pub struct Member {
    pub door: Door,
    pub id: String,
    pub request: JoinGroupRequest,
    pub epoch: u64,
    /// What it may work on: since which epoch, and what was committed then.
    pub assigned: BTreeMap<Place, (u64, Option<u64>)>,
    pub revoking: BTreeSet<Place>,
    /// How often a partition that it had was taken away.
    pub losses: usize,
}

/// What a member asks for when it does not care.
pub fn subscription(topics: &[&str]) -> JoinGroupRequest {
    JoinGroupRequest {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        client_id: "test".to_owned(),
        ..JoinGroupRequest::default()
    }
}

impl Member {
    /// Joins, whoever coordinates.
    pub async fn join(door: &Door, id: &str, request: JoinGroupRequest) -> Self {
        Self::try_join(door, id, request).await.expect("joined")
    }

    pub async fn try_join(door: &Door, id: &str, request: JoinGroupRequest) -> Result<Self, Error> {
        let id = format!("{id}-0123456789abcdef");
        let request = JoinGroupRequest {
            group: door.group.clone(),
            member_id: id.clone(),
            ..request
        };
        let mut member = Self {
            door: door.clone(),
            id,
            request,
            epoch: 0,
            assigned: BTreeMap::new(),
            revoking: BTreeSet::new(),
            losses: 0,
        };
        let joined = door.call(async |mut client| {
            let answer = client.join(member.request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        let answer = joined.await?;
        member.learn(answer.assignment.expect("an assignment"));
        Ok(member)
    }

    fn learn(&mut self, assignment: highwater_proto::v1::Assignment) {
        self.epoch = assignment.epoch;
        let topics = assignment.topics.into_iter().flat_map(|topic| {
            let partitions = topic.partitions.into_iter();
            partitions.map(move |p| {
                (
                    (topic.topic_id, p.partition),
                    (p.granted_epoch, p.committed),
                )
            })
        });
        let now: BTreeMap<Place, _> = topics.collect();
        let kept = |place: &&Place| now.contains_key(*place);
        self.losses += self.assigned.len() - self.assigned.keys().filter(kept).count();
        self.assigned = now;
        let revoking = assignment.revoking.into_iter();
        self.revoking = revoking.map(|p| (p.topic_id, p.partition)).collect();
    }

    /// One heartbeat that waits for news, and acknowledges what it has if `acknowledges`.
    pub async fn beat(&mut self, wait: Duration, acknowledges: bool) -> Result<(), Error> {
        let request = GroupHeartbeatRequest {
            group: self.door.group.clone(),
            member_id: self.id.clone(),
            instance_id: self.request.instance_id.clone(),
            received_epoch: self.epoch,
            acknowledged_epoch: if acknowledges { self.epoch } else { 0 },
            max_wait_ms: u32::try_from(wait.as_millis()).expect("short"),
            unparked_epoch: 0,
        };
        let answer = self.door.call(async |mut client| {
            let answer = client.heartbeat(request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        match answer.await?.assignment {
            Some(assignment) => self.learn(assignment),
            // Answered without an error: what it acknowledged is given up.
            None if acknowledges => self.revoking.clear(),
            None => {}
        }
        Ok(())
    }

    /// Heartbeats, giving up what it must, until it holds this many and owes nothing.
    pub async fn holds(&mut self, partitions: usize) {
        eventually(&format!("{} holds {partitions}", self.id), async || {
            self.beat(Duration::from_millis(200), true)
                .await
                .expect("a member");
            (self.assigned.len() == partitions && self.revoking.is_empty()).then_some(())
        })
        .await;
    }

    /// Commits for some partitions under the newest epoch.
    pub async fn commit(&self, offsets: &[(Place, u64)]) -> Result<CommitOffsetsResponse, Error> {
        let offsets = offsets
            .iter()
            .map(|((topic_id, partition), offset)| OffsetCommit {
                topic_id: *topic_id,
                partition: *partition,
                offset: *offset,
                ..OffsetCommit::default()
            });
        let request = CommitOffsetsRequest {
            group: self.door.group.clone(),
            member_id: self.id.clone(),
            instance_id: self.request.instance_id.clone(),
            epoch: self.epoch,
            offsets: offsets.collect(),
            ..CommitOffsetsRequest::default()
        };
        let committed = self.door.call(async |mut client| {
            let answer = client.commit_offsets(request.clone()).await?.into_inner();
            let error = answer.error.clone();
            Ok((answer, error))
        });
        committed.await
    }
    pub async fn commit_all(&self, offset: u64) {
        let all: Vec<_> = self.assigned.keys().map(|place| (*place, offset)).collect();
        let results = self.commit(&all).await.expect("committed").results;
        let refused: Vec<_> = results.iter().filter_map(|r| r.error.clone()).collect();
        assert_eq!(refused, [], "every one of its partitions");
    }
}
