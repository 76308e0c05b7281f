//! Who does what: producers and consumers dealt out to worker processes.

use super::collect::Role;
use super::worker::{ConsumePlan, Plan, ProducePlan};
use super::workload::Workload;

/// The plan of each worker process.
pub fn plans(workload: &Workload, topics: &[String], processes: usize) -> Vec<(Role, Plan)> {
    let mut producers: Vec<String> = Vec::new();
    for _ in 0..workload.producers_per_topic {
        producers.extend(topics.iter().cloned());
    }
    let mut plans = Vec::new();
    for (number, share) in shares(&producers, processes).into_iter().enumerate() {
        let part = share.len() as f64 / producers.len() as f64;
        plans.push((
            Role::Producer,
            Plan::Produce(ProducePlan::of(workload, share, part, number as u64)),
        ));
    }
    let tail = consumers(workload, topics, workload.subscriptions_per_topic);
    let late = consumers(workload, topics, workload.catch_up_readers);
    for (role, consumers) in [(Role::Tail, tail), (Role::CatchUp, late)] {
        for consumers in shares(&consumers, processes) {
            plans.push((role, Plan::Consume(ConsumePlan { consumers })));
        }
    }
    plans
}

/// Who reads which partitions: the consumers of a subscription take turns.
fn consumers(workload: &Workload, topics: &[String], times: u32) -> Vec<(String, Vec<u32>)> {
    let each = workload.consumer_per_subscription.max(1);
    let mut consumers = Vec::new();
    for _ in 0..times {
        for topic in topics {
            for number in 0..each.min(workload.partitions_per_topic) {
                let mine = (0..workload.partitions_per_topic).filter(|p| p % each == number);
                consumers.push((topic.clone(), mine.collect()));
            }
        }
    }
    consumers
}

/// `all` dealt out to `processes`, none empty.
fn shares<T: Clone>(all: &[T], processes: usize) -> Vec<Vec<T>> {
    let processes = processes.clamp(1, all.len().max(1));
    let mut shares = vec![Vec::new(); processes];
    for (index, one) in all.iter().enumerate() {
        if let Some(share) = shares.get_mut(index % processes) {
            share.push(one.clone());
        }
    }
    shares.retain(|share| !share.is_empty());
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_dealt_out_once() {
        let workload = Workload {
            topics: 2,
            partitions_per_topic: 5,
            producers_per_topic: 3,
            producer_rate: 600.0,
            message_size: 100,
            subscriptions_per_topic: 1,
            consumer_per_subscription: 2,
            ..Workload::default()
        };
        let topics = ["a".to_owned(), "b".to_owned()];
        let (mut rate, mut producers, mut read) = (0.0, 0, Vec::new());
        for (role, plan) in plans(&workload, &topics, 4) {
            match plan {
                Plan::Produce(plan) => {
                    assert_eq!(role, Role::Producer);
                    rate += plan.rate;
                    producers += plan.topics.len();
                }
                Plan::Consume(plan) => {
                    assert_eq!(role, Role::Tail);
                    for (topic, partitions) in plan.consumers {
                        read.extend(partitions.into_iter().map(|p| (topic.clone(), p)));
                    }
                }
            }
        }
        assert!(
            (rate - 600.0).abs() < 1e-6 && producers == 6,
            "{rate} {producers}"
        );
        read.sort();
        let all: Vec<(String, u32)> = topics
            .iter()
            .flat_map(|topic| (0..5).map(|partition| (topic.clone(), partition)))
            .collect();
        assert_eq!(read, all);
    }
}
