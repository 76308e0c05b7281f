//! Workers take jobs in order, on a thread as in a task, and end with their last handle.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Worker, Workers};

struct Sum {
    seen: Arc<Mutex<Vec<u32>>>,
    stop_at: Option<u32>,
}

impl Worker for Sum {
    type Job = u32;
    fn run(&mut self, jobs: &mut Vec<u32>) -> bool {
        let stops = self.stop_at.is_some_and(|at| jobs.contains(&at));
        self.seen.lock().append(jobs);
        !stops
    }
    fn stop(&mut self) {
        self.seen.lock().push(u32::MAX);
    }
}

#[tokio::test]
async fn jobs_arrive_in_order_and_the_end_is_told_once() {
    for workers in [Workers::Threads, Workers::Tasks] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let worker = Sum {
            seen: Arc::clone(&seen),
            stop_at: None,
        };
        let (handle, join) = workers.spawn("sum", 4, worker).unwrap();
        for job in 0..100 {
            handle.send(job).await.unwrap();
        }
        drop(handle);
        join.join().await;
        let expected: Vec<_> = (0..100).chain([u32::MAX]).collect();
        assert_eq!(*seen.lock(), expected);
    }
}

#[tokio::test]
async fn a_worker_that_stopped_takes_nothing_more() {
    for workers in [Workers::Threads, Workers::Tasks] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let worker = Sum {
            seen: Arc::clone(&seen),
            stop_at: Some(1),
        };
        let (handle, join) = workers.spawn("sum", 4, worker).unwrap();
        handle.send(1).await.unwrap();
        join.join().await;
        handle.send(2).await.unwrap_err();
        assert!(handle.try_send(3).is_err());
        assert_eq!(*seen.lock(), [1, u32::MAX]);
    }
}
