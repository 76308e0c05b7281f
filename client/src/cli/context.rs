//! Which cluster: flags, environment, contexts file.
//!
//! ```toml
//! current = "local"
//! [contexts.local]
//! brokers = "localhost:9094"
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{CliError, GlobalOptions};

const DEFAULT: &str = "localhost:9094";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    brokers: String,
}

pub(super) async fn resolve(options: &GlobalOptions) -> Result<String, CliError> {
    if let Some(brokers) = &options.brokers {
        return Ok(brokers.clone());
    }
    let (mut name, mut named_by) = (options.context.clone(), "--context");
    if name.is_none() {
        if let Some(brokers) = variable("HIGHWATER_BROKERS") {
            return Ok(brokers);
        }
        (name, named_by) = (variable("HIGHWATER_CONTEXT"), "HIGHWATER_CONTEXT");
    }
    let Some(path) = path() else {
        return match name {
            None => Ok(DEFAULT.to_owned()),
            Some(_) => Err(CliError::Usage(format!("{named_by}: HOME is not set"))),
        };
    };
    let shown = path.display().to_string();
    match tokio::fs::read_to_string(&path).await {
        Ok(text) => choose(&text, &shown, name.as_deref(), named_by),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.is_none() => {
            Ok(DEFAULT.to_owned())
        }
        Err(error) => Err(CliError::Usage(format!("{shown}: {error}"))),
    }
}

fn choose(text: &str, path: &str, name: Option<&str>, named_by: &str) -> Result<String, CliError> {
    let wrong = |what: String| CliError::Usage(format!("{path}: {what}"));
    let file: Contexts = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let (name, named_by) = match (name, &file.current) {
        (Some(name), _) => (name, named_by),
        (None, Some(current)) => (current.as_str(), "current"),
        (None, None) => return Ok(DEFAULT.to_owned()),
    };
    let known = || file.contexts.keys().cloned().collect::<Vec<_>>().join(", ");
    match file.contexts.get(name) {
        Some(context) => Ok(context.brokers.clone()),
        None => Err(wrong(format!(
            "{named_by} names {name:?}; there are: {}",
            known()
        ))),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn path() -> Option<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = config.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
    Some(base.join("highwater").join("contexts.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "current = \"a\"\n[contexts.a]\nbrokers = \"a:1\"\n[contexts.b]\nbrokers = \"b:2\"\n";

    #[test]
    fn a_name_outweighs_the_current_context_and_mistakes_are_named() {
        assert_eq!(choose(FILE, "f", None, "").unwrap(), "a:1");
        assert_eq!(choose(FILE, "f", Some("b"), "--context").unwrap(), "b:2");
        assert_eq!(choose("", "f", None, "").unwrap(), DEFAULT);
        let missing = choose(FILE, "f", Some("c"), "--context").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "f: --context names \"c\"; there are: a, b"
        );
        let unknown_key = choose("colour = 1", "f", None, "").unwrap_err();
        assert!(unknown_key.to_string().contains("unknown field"));
        assert_eq!(missing.code(), 2);
    }
}
