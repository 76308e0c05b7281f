//! The `highwater` binary. Everything it does lies in the library, so that nothing is compiled twice.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};

/// A broker allocates a few small things per batch, on one thread, and frees them on another: with
/// the C library's allocator that took a sixth of its time (benches/README.md). Huge pages are off (the feature
/// `no_thp`): with them an idle broker held 130 MiB instead of 50.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept before it goes back to the system, ms. With the allocator's own 10 ms a
/// broker under load gave back what it needed again at once: a tenth of its CPU went into page faults.
const KEPT_FREED_MS: c_long = 300;
/// `mi_option_purge_delay` of mimalloc 2, which its Rust crate does not name.
const PURGE_DELAY: c_int = 15;

fn main() -> std::process::ExitCode {
    // SAFETY: takes two numbers and must not run beside other calls of its kind; no other thread exists
    // yet. `MIMALLOC_PURGE_DELAY` in the environment wins.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_FREED_MS) };
    highwater_broker::cli::main()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_ten_by_default() {
        // SAFETY: reads a number that nothing changes in this process.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 10);
    }
}
