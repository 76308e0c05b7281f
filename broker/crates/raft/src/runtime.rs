//! tokio for openraft, with a source of randomness that a simulation can fix. openraft draws from
//! it the election timeouts and the phases of its ticks, nothing else; `silence.rs` draws timeouts, too.
//!
//! The ticks of all groups of a broker fall together here: 25 groups that each wake 25 times a
//! second in a phase of their own were most of what an idle broker did.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
#[allow(deprecated)] // the same type; its own crate would be one more dependency
use openraft::impls::TokioRuntime;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::{AsyncRuntime, Instant as _, OptionalSend};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::{Handle, Id};

#[allow(deprecated)]
type Tokio = TokioRuntime;
type Seeded = DeterministicRng<Tokio>;
type Instant = <Tokio as AsyncRuntime>::Instant;

/// The state of the fixed sequence; `None`: real randomness.
static FIXED: Mutex<Option<u64>> = Mutex::new(None);

/// Makes every random choice of the groups in this process follow from `seed` and from the order
/// of events. For simulations, which run one seed per process.
pub fn fix_randomness(seed: u64) {
    *FIXED.lock() = Some(seed);
}

fn next_seed() -> u64 {
    match FIXED.lock().as_mut() {
        None => rand::random(),
        Some(state) => {
            // An odd step visits every value; the generator seeded with it does the mixing.
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *state
        }
    }
}

/// A random time between two.
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    let mut random = StdRng::seed_from_u64(next_seed());
    random.random_range(least..=most.max(least))
}

/// How far apart the moments are at which groups tick: openraft's tick with the default timings.
const GRID: Duration = Duration::from_millis(40);
/// A wait below this is no tick and ends when it was asked to.
const NO_TICK: Duration = Duration::from_millis(2);

/// Where the grid of each runtime begins. By runtime, because the clocks of simulated brokers are
/// not comparable.
static GRIDS: Mutex<Vec<(Id, Instant)>> = Mutex::new(Vec::new());

/// The first moment on the grid of this runtime that is not before `deadline`.
fn on_grid(deadline: Instant) -> Instant {
    if deadline.saturating_duration_since(Instant::now()) < NO_TICK {
        return deadline;
    }
    let runtime = Handle::current().id();
    let mut grids = GRIDS.lock();
    let known = grids.iter().find(|(id, _)| *id == runtime);
    let Some((_, begin)) = known else {
        grids.push((runtime, deadline));
        return deadline;
    };
    let past = deadline.saturating_duration_since(*begin).as_nanos() % GRID.as_nanos();
    // Below GRID, so it fits.
    let past = Duration::from_nanos(u64::try_from(past).unwrap_or_default());
    if past.is_zero() {
        return deadline;
    }
    deadline + (GRID - past)
}

/// The runtime that openraft's tasks run on.
#[derive(Debug)]
pub(crate) struct Runtime(Tokio);

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }
    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(on_grid(deadline))
    }
    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }
    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }
    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }
    fn thread_rng() -> Self::ThreadLocalRng {
        let drawn = Seeded::scope(next_seed(), async { Seeded::thread_rng() }).now_or_never();
        let Some(rng) = drawn else {
            unreachable!("drawing a generator never waits")
        };
        rng
    }
    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
