//! A write-ahead log seen from outside, by its written format: where its groups lie.

use std::fs;
use std::path::{Path, PathBuf};

/// The header of a file has a block of its own.
const FIRST_GROUP: usize = 4096;
const GROUP_HEADER: usize = 64;

/// The newest file of a log.
pub struct WalFile {
    pub path: PathBuf,
    bytes: Vec<u8>,
    generation: u64,
}

/// Where a group lies in its file, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub at: usize,
    pub end: usize,
    /// Written when nothing waited; the next group overwrites it.
    pub idle_marker: bool,
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let field = &bytes[at..at + len];
    field.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

impl WalFile {
    /// The file with the highest generation in `dir`.
    pub fn newest(dir: &Path) -> Self {
        let files = fs::read_dir(dir)
            .expect("a log")
            .map(|entry| entry.expect("a file").path());
        let wal = files.filter(|path| path.extension().is_some_and(|end| end == "wal"));
        let read = wal.map(|path| {
            let bytes = fs::read(&path).expect("read");
            assert_eq!(&bytes[..8], b"HWWALOG\n");
            let generation = number(&bytes, 16, 8);
            Self {
                path,
                bytes,
                generation,
            }
        });
        read.max_by_key(|file| file.generation)
            .expect("at least one file")
    }

    /// The groups of the file's current use, in order; the last may be an idle marker.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut at = FIRST_GROUP;
        while at + GROUP_HEADER <= self.bytes.len()
            && &self.bytes[at..at + 4] == b"HwG1"
            && number(&self.bytes, at + 8, 8) == self.generation
        {
            let frames = number(&self.bytes, at + 24, 4) as usize;
            let idle_marker = number(&self.bytes, at + 36, 4) & 1 == 1;
            let end = at + (GROUP_HEADER + frames).next_multiple_of(GROUP_HEADER);
            groups.push(Group {
                at,
                end,
                idle_marker,
            });
            if idle_marker {
                break;
            }
            at = end;
        }
        groups
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes `bytes` at a place of the file.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&self.path, &self.bytes).expect("written");
    }

    /// Turns one byte around; again to undo it.
    pub fn flip(&mut self, at: usize) {
        let flipped = [self.bytes[at] ^ 0xff];
        self.overwrite(at, &flipped);
    }
}
