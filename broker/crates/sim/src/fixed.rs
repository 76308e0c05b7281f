//! Randomness and clocks of the whole process, fixed.
//!
//! Seeds of hash maps, of tokio's `select!`, of ids and jitter all come from the C function
//! `getrandom`; the date in HTTP answers and the bookkeeping of HTTP/2 streams come from
//! `clock_gettime`. Both are reached from deep inside the standard library and crates that know
//! no parameter for them, so the only way to fix them is to define these two functions ourselves:
//! the linker prefers them to the C library's. Defining a C symbol and filling a caller's buffer
//! is unsafe; nothing else here is. Until [`fix`] is called both answer as the system does.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static FIXED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);

/// What the clocks show at the start of a run: 2026-01-01, in seconds since the Unix epoch.
const EPOCH_SECONDS: u64 = 1_767_225_600;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// From now on everything follows from `seed`.
pub fn fix(seed: u64) {
    RANDOM.store(seed, Ordering::SeqCst);
    FIXED.store(true, Ordering::SeqCst);
}

/// Sets the clocks to a time since the start of the run.
pub fn set_time(elapsed: Duration) {
    let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    NANOS.store(nanos, Ordering::SeqCst);
}

/// The next number of splitmix64.
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = RANDOM.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Stands in for the C library's function of this name.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes, as its manual page demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: c_uint) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller vouches for `len` writable bytes; `MaybeUninit` may hold anything.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), len) };
    if !FIXED.load(Ordering::SeqCst) {
        return match rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok((filled, _)) => isize::try_from(filled.len()).unwrap_or(-1),
            Err(_) => -1,
        };
    }
    for chunk in bytes.chunks_mut(8) {
        for (to, from) in chunk.iter_mut().zip(next().to_le_bytes()) {
            to.write(from);
        }
    }
    isize::try_from(len).unwrap_or(-1)
}

/// `struct timespec` of 64-bit Linux.
#[repr(C)]
pub struct TimeSpec {
    seconds: c_long,
    nanos: c_long,
}

/// Stands in for the C library's function of this name.
///
/// # Safety
/// `out` must be valid for the write of one `timespec`, as its manual page demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, out: *mut TimeSpec) -> c_int {
    let wall = clock == 0;
    let shown = if FIXED.load(Ordering::SeqCst) {
        // Monotonic time starts well above zero, because programs subtract from it.
        let nanos = NANOS.load(Ordering::SeqCst);
        let seconds = EPOCH_SECONDS + nanos / NANOS_PER_SECOND;
        TimeSpec {
            seconds: c_long::try_from(seconds).unwrap_or(c_long::MAX),
            nanos: c_long::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0),
        }
    } else {
        let id = if wall {
            rustix::time::ClockId::Realtime
        } else {
            rustix::time::ClockId::Monotonic
        };
        let now = rustix::time::clock_gettime(id);
        TimeSpec {
            seconds: now.tv_sec,
            nanos: now.tv_nsec,
        }
    };
    // SAFETY: the caller vouches for one writable `timespec`.
    unsafe { out.write(shown) };
    0
}
