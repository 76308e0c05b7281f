//! The repository's sources and manifests.

use std::fs;
use std::path::{Path, PathBuf};

use super::text;

/// Directories that hold nothing of ours to read.
const SKIPPED: [&str; 5] = ["target", ".git", "golden", "corpus", "fixtures"];

/// One Rust file.
pub struct Source {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// As it is.
    pub text: String,
    /// With comments and literals blanked out, line for line.
    pub code: String,
}

/// One crate's Cargo.toml.
pub struct Manifest {
    /// From the repository's root.
    pub path: String,
    /// As it is.
    pub text: String,
}

/// Everything the rules look at, in the order of paths.
pub struct Tree {
    /// Rust files.
    pub sources: Vec<Source>,
    /// Manifests, without the workspace's own.
    pub manifests: Vec<Manifest>,
}

impl Source {
    /// A source from its text.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: text::blank(text),
        }
    }

    /// How many lines it has.
    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Whether it is test code, a bench, an example or a build script: never part of a broker.
    pub fn is_test(&self) -> bool {
        let path = self.path.as_str();
        let name = path.rsplit('/').next().unwrap_or(path);
        name.ends_with("_tests.rs")
            || name == "tests.rs"
            || name == "build.rs"
            || ["tests", "test_support", "benches", "examples", "fuzz"]
                .iter()
                .any(|folder| path.split('/').any(|part| part == *folder))
    }

    /// Each line of code that contains `word` as a whole word, with its number.
    pub fn with_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let lines = self
            .code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines.filter(move |(_, line)| text::has_word(line, word))
    }

    /// A violation at a line.
    pub fn at(&self, line: usize, problem: &str) -> String {
        format!("{}:{line}: {problem}", self.path)
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Tree {
    /// Reads the repository.
    pub fn load() -> Self {
        let root = root();
        let mut tree = Self {
            sources: Vec::new(),
            manifests: Vec::new(),
        };
        let mut paths = Vec::new();
        collect(&root, &mut paths);
        paths.sort();
        for path in paths {
            let relative = path.strip_prefix(&root).expect("below the root");
            let relative = relative.to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).expect("readable text");
            if relative.ends_with(".rs") {
                tree.sources.push(Source::new(&relative, &text));
            } else if relative != "Cargo.toml" {
                tree.manifests.push(Manifest {
                    path: relative,
                    text,
                });
            }
        }
        tree
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("a readable entry");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_ref()) {
                collect(&path, found);
            }
        } else if kind.is_file() && (name.ends_with(".rs") || name == "Cargo.toml") {
            found.push(path);
        }
    }
}
