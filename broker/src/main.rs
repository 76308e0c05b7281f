//! The `highwater` binary. Everything it does lies in the library, so that nothing is compiled twice.

/// A broker allocates a few small things per batch, on one thread, and frees them on another: with
/// the C library's allocator that took a sixth of its time (benches/README.md). Huge pages are off (the feature
/// `no_thp`): with them an idle broker held 130 MiB instead of 50.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    highwater_broker::cli::main()
}
