//! Who was heard when: the sessions of members, as far as one leadership knows them.
//!
//! Time is what the coordinator was awake for. A tick that comes late (the process was paused, the
//! machine was overloaded, a proposal took long) starts every session anew, because heartbeats may
//! have waited all that time in some queue; so does another leadership. A member is thus expelled
//! only by a coordinator that was there to hear it, for its whole session timeout.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::internal::GroupRemove;
use highwater_shard::groups::Group;
use tokio::time::Instant;

/// Between two ticks.
pub const TICK: Duration = Duration::from_millis(250);
/// A tick that comes this long after the one before starts all sessions anew.
pub const LATE: Duration = Duration::from_secs(1);

/// A member that is to be expelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Expiry {
    /// From this group.
    pub group: Arc<str>,
    /// The command's content.
    pub remove: GroupRemove,
    /// For the log.
    pub reason: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    /// Of the join that the session belongs to.
    joined: u64,
    heard: Duration,
    /// The epoch that the member has to acknowledge, since when.
    owes: Option<(u64, Duration)>,
}

/// The sessions of one shard's groups.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Time spent awake under this leadership.
    awake: Duration,
    last_tick: Option<Instant>,
    groups: HashMap<Arc<str>, HashMap<Arc<str>, Session>>,
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

impl Sessions {
    /// Begins anew, as for another leadership.
    pub fn restart(&mut self, now: Instant) {
        *self = Self {
            last_tick: Some(now),
            ..Self::default()
        };
    }
    /// A member was heard.
    pub fn heard(&mut self, group: &str, member: &str) {
        // Between two ticks time stands still, so what is heard counts from the next one.
        let now = self.awake + TICK;
        let session = self.groups.get_mut(group).and_then(|g| g.get_mut(member));
        if let Some(session) = session {
            session.heard = now;
        }
    }
    /// How long ago a member was heard.
    #[must_use]
    pub fn silent_for(&self, group: &str, member: &str) -> Option<Duration> {
        let session = self.groups.get(group)?.get(member)?;
        Some(self.awake.saturating_sub(session.heard))
    }

    /// Lets time pass, and says who is to be expelled.
    pub fn tick(&mut self, now: Instant, groups: &[(Arc<str>, Arc<Group>)]) -> Vec<Expiry> {
        let passed = self.last_tick.map_or(Duration::ZERO, |last| now - last);
        self.last_tick = Some(now);
        if passed > LATE && !self.groups.is_empty() {
            tracing::info!(
                late_ms = passed.as_millis(),
                "the coordinator was held up; sessions of members start anew"
            );
            self.groups.clear();
        }
        self.awake += passed.min(2 * TICK);
        let mut expired = Vec::new();
        let mut before = std::mem::take(&mut self.groups);
        for (name, group) in groups.iter().filter(|(_, group)| !group.members.is_empty()) {
            let mut known = before.remove(name).unwrap_or_default();
            let sessions = group.members.iter().map(|(id, member)| {
                let fresh = Session {
                    joined: member.joined,
                    heard: self.awake,
                    owes: None,
                };
                let mut session = known
                    .remove(id)
                    .filter(|session| session.joined == member.joined)
                    .unwrap_or(fresh);
                session.owes = member.owes().map(|epoch| match session.owes {
                    Some((same, since)) if same == epoch => (epoch, since),
                    _ => (epoch, self.awake),
                });
                if let Some((remove, reason)) = self.is_over(id, session, member) {
                    let group = Arc::clone(name);
                    expired.push(Expiry {
                        group,
                        remove,
                        reason,
                    });
                }
                (Arc::clone(id), session)
            });
            let sessions = sessions.collect();
            self.groups.insert(Arc::clone(name), sessions);
        }
        expired
    }

    fn is_over(
        &self,
        id: &Arc<str>,
        session: Session,
        member: &highwater_shard::groups::Member,
    ) -> Option<(GroupRemove, &'static str)> {
        let spec = &member.spec;
        let remove = GroupRemove {
            member_ids: vec![id.to_string()],
            joined: member.joined,
            ..GroupRemove::default()
        };
        if self.awake.saturating_sub(session.heard) > millis(spec.session_timeout_ms) {
            return Some((remove, "no heartbeat for its session timeout"));
        }
        let (epoch, since) = session.owes?;
        if self.awake - since > millis(spec.rebalance_timeout_ms) {
            let remove = GroupRemove {
                unacknowledged: epoch,
                ..remove
            };
            return Some((remove, "did not give up partitions in time"));
        }
        None
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
