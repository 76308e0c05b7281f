//! Refuses the feature `mutant` under every cargo profile but `mutant`.

use std::ffi::OsStr;
use std::path::{Component, Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_MUTANT").is_none() {
        return;
    }
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    if profile_directory(Path::new(&out)) != Some(OsStr::new("mutant")) {
        println!(
            "cargo::error=the feature `mutant` makes a broker that loses data on purpose; it builds \
             with `--profile mutant` alone"
        );
    }
}

/// Cargo builds below `<target>/<profile's directory>/build/`: what stands before the last `build`.
/// The directory of a profile is its name, but for `dev` and `test` (debug), and `bench` (release).
fn profile_directory(out: &Path) -> Option<&OsStr> {
    let mut components = out.components().rev();
    components.find(|part| part.as_os_str() == "build")?;
    match components.next()? {
        Component::Normal(profile) => Some(profile),
        _ => None,
    }
}
