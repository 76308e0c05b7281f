//! Golden files: where they are, and what their JSON says.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_proto::batch::{BatchError, DecodeLimits, Record, RecordBatch};
use serde_json::Value;

/// The golden files with this prefix, by name, with what Kafka's client read in them.
pub fn goldens(prefix: &str) -> Vec<(String, Bytes, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory())
        .expect("proto/golden")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    paths.sort();
    let name = |path: &Path| {
        path.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    let mut found: Vec<_> = paths.iter().map(|path| (name(path), path)).collect();
    found.retain(|(name, _)| name.starts_with(prefix));
    let load = |(name, path): (String, &PathBuf)| {
        let json = std::fs::read(path.with_extension("json")).expect("its JSON");
        let json = serde_json::from_slice(&json).expect("JSON");
        (
            name,
            Bytes::from(std::fs::read(path).expect("its bytes")),
            json,
        )
    };
    found.into_iter().map(load).collect()
}

/// The bytes of one golden file.
pub fn golden(name: &str) -> Bytes {
    std::fs::read(directory().join(name))
        .expect("a golden file")
        .into()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Decodes every record.
pub fn records(batch: &RecordBatch) -> Result<Vec<Record>, BatchError> {
    batch.records(&DecodeLimits::default())?.collect()
}

/// Bytes from hexadecimal digits; `None` from null.
pub fn unhex(value: &Value) -> Option<Bytes> {
    let digits = value.as_str()?;
    assert!(digits.len().is_multiple_of(2), "{digits}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    Some(
        (0..digits.len())
            .step_by(2)
            .map(byte)
            .collect::<Vec<u8>>()
            .into(),
    )
}
