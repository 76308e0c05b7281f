//! The fake's consumer groups: an honest coordinator in memory, at broker 1.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_client::ErrorCode;
use highwater_proto::v1::{self, groups_server::Groups};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::{Node, State, error};

/// A longer one cannot be parked, in bytes.
const LONGEST_KEY: usize = 64 << 10;

type Place = (u64, u32);
type KeyPlace = (u64, u32, Vec<u8>);

#[derive(Default)]
pub struct Member {
    topics: BTreeSet<String>,
    /// Granted partitions with their epochs.
    pub held: BTreeMap<Place, u64>,
    /// Told to give up; others wait for them.
    revoking: BTreeMap<Place, u64>,
    epoch: u64,
}

#[derive(Default)]
pub struct Group {
    pub members: BTreeMap<String, Member>,
    pub offsets: BTreeMap<Place, u64>,
    /// First and last offset, and how many records.
    pub parked: BTreeMap<KeyPlace, (u64, u64, u32)>,
    epoch: u64,
    unparked: u64,
    /// Members that leave by themselves.
    pub left: u32,
    /// Commits and parks that were refused.
    pub refused: u32,
    /// Calls that parked something.
    pub park_calls: u32,
    /// Calls that committed something.
    pub commit_calls: u32,
    /// The next so many commits are carried out and answered as unknown.
    pub unknown_commits: u32,
    /// The next so many requests to unpark are refused.
    pub refused_unparks: u32,
    /// Nothing more can be parked.
    pub full: bool,
}

impl Group {
    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Every partition in turn to every member; what moves is first given up.
    fn rebalance(&mut self, topics: &BTreeMap<String, (u64, u32)>) {
        let mut target: BTreeMap<Place, String> = BTreeMap::new();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        let mut turn = 0;
        for (name, &(id, partitions)) in topics {
            for partition in 0..partitions {
                let takers: Vec<_> = ids
                    .iter()
                    .filter(|m| self.members[*m].topics.contains(name))
                    .collect();
                if !takers.is_empty() {
                    target.insert((id, partition), takers[turn % takers.len()].clone());
                    turn += 1;
                }
            }
        }
        for id in &ids {
            let epoch = self.epoch + 1;
            let member = self.members.get_mut(id).unwrap();
            let surplus: Vec<Place> = member.held.keys().copied().collect();
            let surplus = surplus.into_iter().filter(|p| target.get(p) != Some(id));
            let mut any = false;
            for place in surplus {
                member.held.remove(&place);
                member.revoking.insert(place, epoch);
                any = true;
            }
            if any {
                member.epoch = epoch;
                self.epoch = epoch;
            }
        }
        for (place, id) in target {
            let owned = |m: &Member| m.held.contains_key(&place) || m.revoking.contains_key(&place);
            if self.members.values().any(owned) {
                continue;
            }
            let epoch = self.next_epoch();
            let member = self.members.get_mut(&id).unwrap();
            member.held.insert(place, epoch);
            member.epoch = epoch;
        }
    }

    fn assignment(&self, member: &Member, names: &BTreeMap<u64, String>) -> v1::Assignment {
        let mut topics: BTreeMap<u64, Vec<v1::AssignedPartition>> = BTreeMap::new();
        for (&(topic, partition), &granted_epoch) in &member.held {
            let partition = v1::AssignedPartition {
                partition,
                granted_epoch,
                committed: self.offsets.get(&(topic, partition)).copied(),
            };
            topics.entry(topic).or_default().push(partition);
        }
        let topic = |(topic_id, partitions)| v1::AssignedTopic {
            topic_id,
            topic: names.get(&topic_id).cloned().unwrap_or_default(),
            partitions,
        };
        let revoking = member.revoking.keys();
        v1::Assignment {
            epoch: member.epoch,
            topics: topics.into_iter().map(topic).collect(),
            revoking: revoking
                .map(|&(topic_id, partition)| v1::PartitionRef {
                    topic_id,
                    partition,
                })
                .collect(),
        }
    }

    fn may_commit(&self, member: &str, place: Place, epoch: u64) -> bool {
        self.members.get(member).is_some_and(|member| {
            let granted = member
                .held
                .get(&place)
                .is_some_and(|granted| epoch >= *granted);
            granted || member.revoking.contains_key(&place)
        })
    }

    fn commit(
        &mut self,
        (member, epoch): (&str, u64),
        commit: &v1::OffsetCommit,
        rewind: bool,
    ) -> v1::CommitResult {
        let place = (commit.topic_id, commit.partition);
        let outside = member.is_empty() && self.members.is_empty();
        let code = if !outside && !self.may_commit(member, place, epoch) {
            Some(ErrorCode::FencedMember)
        } else if self
            .offsets
            .get(&place)
            .is_some_and(|at| *at > commit.offset && !rewind)
        {
            Some(ErrorCode::CommitBehind)
        } else {
            self.offsets.insert(place, commit.offset);
            None
        };
        self.refused += u32::from(code.is_some());
        v1::CommitResult {
            error: code.map(|code| error(code, None)),
            committed: self.offsets.get(&place).copied().unwrap_or(0),
        }
    }
}

impl State {
    fn known_topics(&self) -> BTreeMap<String, (u64, u32)> {
        let of = |(name, topic): (&String, &super::Topic)| {
            (name.clone(), (topic.id, topic.partitions.len() as u32))
        };
        self.topics.iter().map(of).collect()
    }
    fn topic_names(&self) -> BTreeMap<u64, String> {
        self.topics.iter().map(|(n, t)| (t.id, n.clone())).collect()
    }
    pub fn rebalance(&mut self, group: &str) {
        let topics = self.known_topics();
        if let Some(group) = self.groups.get_mut(group) {
            group.rebalance(&topics);
        }
    }
    /// A forced reset of one partition: whoever holds it is granted it anew.
    pub fn reset(&mut self, group: &str, place: (u64, u32), offset: u64) {
        let group = self.groups.get_mut(group).unwrap();
        let epoch = group.next_epoch();
        group.offsets.insert(place, offset);
        for member in group.members.values_mut() {
            if let Some(granted) = member.held.get_mut(&place) {
                (*granted, member.epoch) = (epoch, epoch);
            }
        }
    }
    /// As if nothing had been heard of the member for its session timeout.
    pub fn expel(&mut self, group: &str, member: &str) {
        self.groups.get_mut(group).unwrap().members.remove(member);
        self.rebalance(group);
    }
}

fn answer<T>(response: T) -> Result<Response<T>, Status> {
    Ok(Response::new(response))
}

impl Node {
    fn news(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Nothing but broker 1 coordinates.
    fn elsewhere(&self) -> Option<v1::Error> {
        let hint = self.state.lock().hint(1, 1);
        (self.id != 1).then(|| error(ErrorCode::NotLeader, Some(hint)))
    }

    fn look(&self, request: &v1::GroupHeartbeatRequest) -> v1::GroupHeartbeatResponse {
        let mut state = self.state.lock();
        // New topics are picked up.
        state.rebalance(&request.group);
        let names = state.topic_names();
        let failed = |code| v1::GroupHeartbeatResponse {
            error: Some(error(code, None)),
            ..Default::default()
        };
        let Some(group) = state.groups.get(&request.group) else {
            return failed(ErrorCode::UnknownGroup);
        };
        let Some(member) = group.members.get(&request.member_id) else {
            return failed(ErrorCode::UnknownMember);
        };
        let news = member.epoch > request.received_epoch;
        v1::GroupHeartbeatResponse {
            error: None,
            assignment: news.then(|| group.assignment(member, &names)),
            generation: group.epoch,
            unparked_epoch: group.unparked,
        }
    }
}

#[tonic::async_trait]
impl Groups for Node {
    async fn find_coordinator(
        &self,
        request: Request<v1::FindCoordinatorRequest>,
    ) -> Result<Response<v1::FindCoordinatorResponse>, Status> {
        let leader = self.state.lock().hint(1, 1);
        let coordinator = |group| v1::Coordinator {
            group,
            error: None,
            shard: 1,
            leader: Some(leader.clone()),
        };
        let groups = request.into_inner().groups;
        let coordinators = groups.into_iter().map(coordinator).collect();
        answer(v1::FindCoordinatorResponse { coordinators })
    }

    async fn join(
        &self,
        request: Request<v1::JoinGroupRequest>,
    ) -> Result<Response<v1::JoinGroupResponse>, Status> {
        let request = request.into_inner();
        if let Some(error) = self.elsewhere() {
            return answer(v1::JoinGroupResponse {
                error: Some(error),
                ..Default::default()
            });
        }
        let mut state = self.state.lock();
        let group = state.groups.entry(request.group.clone()).or_default();
        let member = group.members.entry(request.member_id.clone()).or_default();
        member.topics = request.topics.into_iter().collect();
        state.rebalance(&request.group);
        let names = state.topic_names();
        let group = &state.groups[&request.group];
        let assignment = group.assignment(&group.members[&request.member_id], &names);
        let generation = group.epoch;
        drop(state);
        self.news();
        answer(v1::JoinGroupResponse {
            error: None,
            assignment: Some(assignment),
            heartbeat_interval_ms: 500,
            generation,
        })
    }

    async fn heartbeat(
        &self,
        request: Request<v1::GroupHeartbeatRequest>,
    ) -> Result<Response<v1::GroupHeartbeatResponse>, Status> {
        let request = request.into_inner();
        let mut changed = self.changed.subscribe();
        {
            let mut state = self.state.lock();
            let group = state.groups.get_mut(&request.group);
            let member = group.and_then(|group| group.members.get_mut(&request.member_id));
            let mut released = false;
            if let Some(member) = member {
                let before = member.revoking.len();
                member
                    .revoking
                    .retain(|_, epoch| *epoch > request.acknowledged_epoch);
                released = member.revoking.len() < before;
            }
            if released {
                state.rebalance(&request.group);
                drop(state);
                self.news();
            }
        }
        let until = Instant::now() + Duration::from_millis(request.max_wait_ms.into());
        loop {
            let found = self.look(&request);
            let news = found.error.is_some()
                || found.assignment.is_some()
                || found.unparked_epoch > request.unparked_epoch;
            if news || timeout_at(until, changed.changed()).await.is_err() {
                return answer(found);
            }
        }
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveGroupRequest>,
    ) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        if let Some(group) = state.groups.get_mut(&request.group) {
            group.left += 1;
            group.members.remove(&request.member_id);
        }
        state.rebalance(&request.group);
        drop(state);
        self.news();
        answer(v1::LeaveGroupResponse { error: None })
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let group = state.groups.entry(request.group).or_default();
        let failed = |code| {
            answer(v1::CommitOffsetsResponse {
                error: Some(error(code, None)),
                results: Vec::new(),
            })
        };
        if !request.member_id.is_empty() && !group.members.contains_key(&request.member_id) {
            group.refused += 1;
            return failed(ErrorCode::UnknownMember);
        }
        group.commit_calls += 1;
        let (member, epoch) = (&request.member_id, request.epoch);
        let results: Vec<_> = request
            .offsets
            .iter()
            .map(|commit| group.commit((member, epoch), commit, request.allow_rewind))
            .collect();
        if group.unknown_commits > 0 {
            group.unknown_commits -= 1;
            return failed(ErrorCode::TimedOut);
        }
        answer(v1::CommitOffsetsResponse {
            error: None,
            results,
        })
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let state = self.state.lock();
        let Some(group) = state.groups.get(&request.into_inner().group) else {
            return answer(v1::FetchOffsetsResponse {
                error: Some(error(ErrorCode::UnknownGroup, None)),
                offsets: Vec::new(),
            });
        };
        let offset = |(&(topic_id, partition), &offset): (&Place, &u64)| v1::CommittedOffset {
            topic_id,
            partition,
            offset,
            ..Default::default()
        };
        let offsets = group.offsets.iter().map(offset).collect();
        answer(v1::FetchOffsetsResponse {
            error: None,
            offsets,
        })
    }

    async fn park_keys(
        &self,
        request: Request<v1::ParkKeysRequest>,
    ) -> Result<Response<v1::ParkKeysResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let group = state.groups.entry(request.group).or_default();
        let (member, epoch) = (&request.member_id, request.epoch);
        let held = |topic, partition| group.may_commit(member, (topic, partition), epoch);
        let keys = request.keys.iter().all(|k| held(k.topic_id, k.partition));
        let offsets = request
            .offsets
            .iter()
            .all(|o| held(o.topic_id, o.partition));
        let refused = if !group.members.contains_key(member) {
            Some(ErrorCode::UnknownMember)
        } else if !keys || !offsets {
            Some(ErrorCode::FencedMember)
        } else if group.full {
            Some(ErrorCode::ParkedFull)
        } else if request.keys.iter().any(|k| k.key.len() > LONGEST_KEY) {
            Some(ErrorCode::GroupLimit)
        } else {
            None
        };
        if let Some(code) = refused {
            group.refused += 1;
            return answer(v1::ParkKeysResponse {
                error: Some(error(code, None)),
                parked_keys: 0,
            });
        }
        group.park_calls += 1;
        for key in request.keys {
            let place = (key.topic_id, key.partition, key.key.to_vec());
            let entry = group
                .parked
                .entry(place)
                .or_insert((key.offset, key.offset, 1));
            if key.offset < entry.0 || key.offset > entry.1 {
                entry.0 = key.offset.min(entry.0);
                entry.1 = key.offset.max(entry.1);
                entry.2 += 1;
            }
        }
        for commit in &request.offsets {
            group.commit((member, epoch), commit, false);
        }
        let parked_keys = group.parked.len() as u32;
        answer(v1::ParkKeysResponse {
            error: None,
            parked_keys,
        })
    }

    async fn unpark_keys(
        &self,
        request: Request<v1::UnparkKeysRequest>,
    ) -> Result<Response<v1::UnparkKeysResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let group = state.groups.entry(request.group).or_default();
        if group.refused_unparks > 0 {
            group.refused_unparks -= 1;
            return answer(v1::UnparkKeysResponse {
                error: Some(error(ErrorCode::InvalidRequest, None)),
                ..Default::default()
            });
        }
        let mut results = Vec::new();
        for key in request.keys {
            let place = (key.topic_id, key.partition, key.key.to_vec());
            let last = group.parked.get(&place).map(|parked| parked.1);
            let whole = last.is_none_or(|last| last <= key.redriven_offset);
            if whole {
                group.parked.remove(&place);
            } else if let Some(parked) = group.parked.get_mut(&place) {
                parked.0 = key.redriven_offset + 1;
            }
            results.push(v1::UnparkResult {
                unparked: whole,
                last_offset: last.filter(|_| !whole),
            });
        }
        group.unparked += 1;
        drop(state);
        self.news();
        answer(v1::UnparkKeysResponse {
            error: None,
            results,
        })
    }

    async fn list_parked_keys(
        &self,
        request: Request<v1::ListParkedKeysRequest>,
    ) -> Result<Response<v1::ListParkedKeysResponse>, Status> {
        let request = request.into_inner();
        let state = self.state.lock();
        let wanted = |topic: u64, partition: u32| {
            let is = |p: &v1::PartitionRef| p.topic_id == topic && p.partition == partition;
            request.partitions.is_empty() || request.partitions.iter().any(is)
        };
        let group = state.groups.get(&request.group);
        let keys = group.into_iter().flat_map(|group| &group.parked);
        let keys = keys
            .filter(|((topic, partition, _), _)| wanted(*topic, *partition))
            .map(|((topic_id, partition, key), parked)| v1::ParkedKey {
                topic_id: *topic_id,
                partition: *partition,
                key: key.clone().into(),
                first_offset: parked.0,
                last_offset: parked.1,
                records: parked.2,
                parked_time_ms: 1_000,
            });
        answer(v1::ListParkedKeysResponse {
            error: None,
            keys: keys.collect(),
            ..Default::default()
        })
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn describe_group(
        &self,
        _: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn reset_offsets(
        &self,
        _: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn copy_group(
        &self,
        _: Request<v1::CopyGroupRequest>,
    ) -> Result<Response<v1::CopyGroupResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
    async fn remove_members(
        &self,
        _: Request<v1::RemoveMembersRequest>,
    ) -> Result<Response<v1::RemoveMembersResponse>, Status> {
        Err(Status::unimplemented("not by the fake"))
    }
}
