//! A member of a group on the wire, so that nothing of the SDK is measured with the broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use highwater_proto::v1::groups_client::GroupsClient;
use highwater_proto::v1::{
    CommitOffsetsRequest, Error, ErrorCode, FindCoordinatorRequest, GroupHeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, OffsetCommit,
};
use tonic::transport::{Channel, Endpoint};

/// Nobody is expelled while something is measured.
const SESSION_MS: u32 = 600_000;
const FIND_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A partition by topic id and number.
pub type Place = (u64, u32);

/// One member.
pub struct Member {
    client: GroupsClient<Channel>,
    group: String,
    id: String,
    received: u64,
    /// What it holds.
    pub held: BTreeMap<Place, u64>,
}

/// What changed with a heartbeat.
#[derive(Debug, Default)]
pub struct News {
    /// Partitions that it has from now on.
    pub gained: Vec<Place>,
    /// Partitions that it gave up.
    pub lost: Vec<Place>,
}

/// A connection to the broker that coordinates a group.
pub async fn coordinator(broker: &str, group: &str) -> anyhow::Result<GroupsClient<Channel>> {
    let end = Instant::now() + FIND_WITHIN;
    let mut any = GroupsClient::new(connect(broker).await?);
    loop {
        let request = FindCoordinatorRequest {
            groups: vec![group.to_owned()],
        };
        let found = any.find_coordinator(request).await?.into_inner();
        let leader = found.coordinators.into_iter().next().and_then(|c| c.leader);
        if let Some(leader) = leader.filter(|leader| !leader.address.is_empty()) {
            return Ok(GroupsClient::new(connect(&leader.address).await?));
        }
        if Instant::now() > end {
            bail!("group {group} has no coordinator");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.tcp_nodelay(true).connect().await;
    channel.with_context(|| format!("cannot reach {address}"))
}

/// A coordinator that has only just been elected is asked again.
fn passes(error: &Error) -> bool {
    let codes = [
        ErrorCode::LeaderUnavailable,
        ErrorCode::NotLeader,
        ErrorCode::Overloaded,
        ErrorCode::LeadershipLost,
    ];
    codes.contains(&error.code())
}

impl Member {
    /// Joins.
    pub async fn join(
        mut client: GroupsClient<Channel>,
        group: &str,
        id: String,
        topic: &str,
    ) -> anyhow::Result<Self> {
        let request = JoinGroupRequest {
            group: group.to_owned(),
            member_id: id.clone(),
            client_id: "highwater-load".to_owned(),
            topics: vec![topic.to_owned()],
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            ..JoinGroupRequest::default()
        };
        loop {
            let joined = client.join(request.clone()).await?.into_inner();
            match joined.error {
                None => break,
                Some(error) if passes(&error) => tokio::time::sleep(LOOK_AGAIN).await,
                Some(error) => bail!("cannot join {group}: {}", error.message),
            }
        }
        Ok(Self {
            client,
            group: group.to_owned(),
            id,
            received: 0,
            held: BTreeMap::new(),
        })
    }

    /// Waits up to `wait` for another assignment, and acknowledges at once what it takes away.
    pub async fn beat(&mut self, wait: Duration) -> anyhow::Result<News> {
        let request = GroupHeartbeatRequest {
            group: self.group.clone(),
            member_id: self.id.clone(),
            received_epoch: self.received,
            acknowledged_epoch: self.received,
            max_wait_ms: u32::try_from(wait.as_millis())?,
            unparked_epoch: u64::MAX,
            ..GroupHeartbeatRequest::default()
        };
        let answer = self.client.heartbeat(request).await?.into_inner();
        if let Some(error) = answer.error.filter(|error| !passes(error)) {
            bail!("{} of {}: {}", self.id, self.group, error.message);
        }
        let Some(assignment) = answer.assignment else {
            return Ok(News::default());
        };
        self.received = assignment.epoch;
        let mut held = BTreeMap::new();
        for topic in &assignment.topics {
            for partition in &topic.partitions {
                let place = (topic.topic_id, partition.partition);
                held.insert(place, partition.committed.unwrap_or(0));
            }
        }
        let news = News {
            gained: held
                .keys()
                .filter(|p| !self.held.contains_key(p))
                .copied()
                .collect(),
            lost: self
                .held
                .keys()
                .filter(|p| !held.contains_key(p))
                .copied()
                .collect(),
        };
        self.held = held;
        Ok(news)
    }

    /// Commits the next offset of everything that it holds, in one call.
    pub async fn commit(&mut self) -> anyhow::Result<()> {
        let offsets = self.held.iter_mut().map(|((topic_id, partition), next)| {
            *next += 1;
            OffsetCommit {
                topic_id: *topic_id,
                partition: *partition,
                offset: *next,
                ..OffsetCommit::default()
            }
        });
        let request = CommitOffsetsRequest {
            group: self.group.clone(),
            member_id: self.id.clone(),
            epoch: self.received,
            offsets: offsets.collect(),
            ..CommitOffsetsRequest::default()
        };
        let done = self.client.commit_offsets(request).await?.into_inner();
        let refused = done.results.into_iter().find_map(|result| result.error);
        match done.error.or(refused) {
            None => Ok(()),
            Some(error) => bail!("commit of {}: {}", self.group, error.message),
        }
    }

    /// Leaves.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let request = LeaveGroupRequest {
            group: self.group,
            member_id: self.id,
            ..LeaveGroupRequest::default()
        };
        let left = self.client.leave(request).await?.into_inner();
        match left.error {
            None => Ok(()),
            Some(error) => bail!("leaving: {}", error.message),
        }
    }
}
