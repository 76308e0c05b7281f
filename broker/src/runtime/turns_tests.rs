//! Tests of turns: free while the CPU is there, few at a time in order while it is short.

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const WALL: Duration = Duration::from_millis(250);

fn spent(ran: u64, waited: u64) -> CpuTime {
    CpuTime {
        ran: Duration::from_millis(ran),
        waited: Duration::from_millis(waited),
    }
}

fn short() -> Arc<Turns> {
    let turns = Turns::default();
    turns.learn(spent(200, 400), WALL);
    assert!(turns.is_short());
    Arc::new(turns)
}

#[test]
fn nobody_waits_while_the_cpu_is_there() {
    let turns = Turns::default();
    let all: Vec<_> = (0..100).map(|_| turns.now()).collect();
    assert!(all.iter().all(Option::is_some));
}

#[tokio::test]
async fn few_go_at_a_time_in_order_while_it_is_short() {
    let turns = short();
    let mut held: Vec<_> = (0..AT_ONCE).map_while(|_| turns.now()).collect();
    assert_eq!(held.len(), AT_ONCE);
    assert!(turns.now().is_none());
    let mut first = Box::pin(Arc::clone(&turns).wait());
    let mut second = Box::pin(Arc::clone(&turns).wait());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    held.pop();
    assert!(turns.now().is_none(), "nobody overtakes who waits");
    assert!((&mut second).now_or_never().is_none());
    let first = first.await;
    drop(first);
    drop(second.await);
    assert!(turns.now().is_some());
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_its_place_to_the_next() {
    let turns = short();
    let held: Vec<_> = (0..AT_ONCE).map_while(|_| turns.now()).collect();
    let mut gone = Box::pin(Arc::clone(&turns).wait());
    assert!((&mut gone).now_or_never().is_none());
    let mut next = Box::pin(Arc::clone(&turns).wait());
    assert!((&mut next).now_or_never().is_none());
    drop(gone);
    drop(held);
    next.await;
}

#[test]
fn the_cpu_is_short_only_for_who_runs_and_waits_longer() {
    assert!(is_short(false, spent(100, 101), WALL));
    assert!(!is_short(false, spent(100, 99), WALL));
    assert!(is_short(true, spent(100, 51), WALL), "it does not flicker");
    assert!(!is_short(true, spent(100, 49), WALL));
    assert!(!is_short(false, spent(24, 500), WALL), "others use it up");
}

#[test]
fn the_times_of_this_process_can_be_read() {
    let tasks = Path::new("/proc/self/task");
    let before = CpuTime::read(tasks).expect("on Linux");
    assert!(before.ran > Duration::ZERO);
    let dir = tempfile::tempdir().expect("a directory");
    for (task, text) in [
        ("1", "10 20 3\n"),
        ("2", "5 6 7\n"),
        ("3", "nonsense"),
        ("4", ""),
    ] {
        let dir = dir.path().join(task);
        std::fs::create_dir(&dir).expect("made");
        std::fs::write(dir.join("schedstat"), text).expect("written");
    }
    std::fs::create_dir(dir.path().join("5")).expect("a thread that has ended");
    let read = CpuTime::read(dir.path()).expect("read");
    assert_eq!(read.ran, Duration::from_nanos(15));
    assert_eq!(read.waited, Duration::from_nanos(26));
}

proptest! {
    #[test]
    fn a_thread_that_ended_takes_nothing_below_zero(a: u32, b: u32, c: u32, d: u32) {
        let time = |ran: u32, waited: u32| spent(ran.into(), waited.into());
        let since = time(a, b).since(time(c, d));
        prop_assert!(since.ran <= time(a, b).ran && since.waited <= time(a, b).waited);
    }
}

#[test]
fn nobody_looks_while_nobody_asks() {
    let (turns, dir) = (Turns::default(), tempfile::tempdir().expect("a directory"));
    let unreadable = dir.path().join("gone");
    let tasks = Path::new("/proc/self/task");
    assert!(turns.look(&unreadable, None).is_none());
    assert!(turns.now().is_some());
    let first = turns.look(tasks, None);
    assert!(first.is_some(), "somebody asked");
    turns.short.store(true, Ordering::Relaxed);
    assert!(turns.look(&unreadable, first).is_none());
    assert!(
        !turns.is_short(),
        "what was seen before the pause says nothing"
    );
}
