//! Finds the broker's program: named, beside this one, or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The name of the broker's program.
const NAME: &str = "highwater";

/// The broker to run: the one named, else this program if it is the broker, else its neighbour,
/// else one built from the sources this program was built from.
///
/// # Errors
/// When the named one is not there, or the build fails.
pub fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "there is no broker at {}", path.display());
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    if own.file_stem().is_some_and(|name| name == NAME) {
        return Ok(own);
    }
    if let Some(neighbour) = own.parent().map(|directory| directory.join(NAME))
        && neighbour.is_file()
    {
        return Ok(neighbour);
    }
    build(&[])
}

/// What a broker's program says of itself: its version, and its commit if the build was told one.
///
/// # Errors
/// When it does not say.
pub async fn version(program: &Path) -> anyhow::Result<String> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    let shown = program.display();
    ensure!(output.status.success(), "{shown} does not tell its version");
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    Ok(said.strip_prefix("highwater ").unwrap_or(said).to_owned())
}

/// Builds the broker with further arguments for cargo, and answers with where it lies.
///
/// # Errors
/// When there are no sources, or cargo fails.
pub fn build(arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    ensure!(
        root.join("broker/Cargo.toml").is_file(),
        "no broker beside this program, and no sources to build one from: name it with --broker PATH"
    );
    let mut words = vec!["build", "--locked", "-p", "highwater-broker", "--bin", NAME];
    if arguments.is_empty() {
        words.push("--release");
    }
    words.extend(arguments);
    eprintln!("Building the broker: cargo {}", words.join(" "));
    let output = Command::new("cargo")
        .args(&words)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(&root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo cannot be run: name a broker with --broker PATH")?;
    ensure!(output.status.success(), "the broker could not be built");
    let found = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == NAME)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    found.context("cargo does not say where it put the broker")
}
