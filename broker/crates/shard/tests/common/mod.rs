//! Golden files.

use std::path::Path;

/// The file's bytes, after holding `now` against them.
pub fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let stored = std::fs::read(path).unwrap_or_default();
    let hex: String = now.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        stored == now,
        "golden {name} differs from what is written now:\n{hex}"
    );
    stored
}
