//! Reading the sources in their order, each value with the place it came from.

use figment::Provider;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Num, Value};

use super::keys::{KEYS, Key, SECTIONS};
use super::nearest::nearest;
use super::value::Raw;
use super::{Config, ConfigError};

/// The prefix of every variable that is read.
const PREFIX: &str = "HIGHWATER_";

/// Variables under the prefix that belong to other parts of the binary.
const OTHER_VARIABLES: [&str; 5] = [
    "HIGHWATER_CONFIG",
    "HIGHWATER_LOG",
    "HIGHWATER_BROKERS",
    "HIGHWATER_CONTEXT",
    "HIGHWATER_OUTPUT",
];

/// What the caller read, in rising order of rank.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's name, for messages, and its text.
    pub file: Option<(String, String)>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags: the flag's spelling, the key as `section.name`, the value.
    pub flags: Vec<(String, String, String)>,
}

pub(super) fn read(sources: &Sources) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    if let Some((name, text)) = &sources.file {
        read_file(&mut config, name, text)?;
    }
    let mut environment = sources.environment.clone();
    environment.sort();
    for (variable, value) in &environment {
        read_variable(&mut config, variable, value)?;
    }
    for (flag, path, value) in &sources.flags {
        let key = find(path).ok_or_else(|| unknown(flag, path))?;
        assign(&mut config, key, flag, &Raw::Text(value.clone()))?;
    }
    Ok(config)
}

fn find(path: &str) -> Option<&'static Key> {
    let (section, name) = path.split_once('.')?;
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
}

/// The error for a key that does not exist, with the nearest of all keys.
fn unknown(place: &str, path: &str) -> ConfigError {
    let paths: Vec<String> = KEYS.iter().map(Key::path).collect();
    let nearest = nearest(path, paths.iter().map(String::as_str))
        .unwrap_or_default()
        .to_owned();
    ConfigError::Unknown {
        place: place.to_owned(),
        name: path.to_owned(),
        nearest,
    }
}

fn assign(config: &mut Config, key: &Key, place: &str, raw: &Raw) -> Result<(), ConfigError> {
    (key.set)(config, raw).map_err(|reason| ConfigError::Value {
        place: place.to_owned(),
        key: key.path(),
        value: quoted(raw),
        reason,
    })
}

fn quoted(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) => format!("{text:?}"),
        Raw::Integer(number) => number.to_string(),
        Raw::List(items) => format!("{items:?}"),
        Raw::Truth(_) => "a truth value".to_owned(),
        Raw::Other(kind) => (*kind).to_owned(),
    }
}

fn read_file(config: &mut Config, file: &str, text: &str) -> Result<(), ConfigError> {
    let profiles = Toml::string(text)
        .data()
        .map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            reason: one_line(&error.to_string()),
        })?;
    for (section, value) in profiles.into_values().flatten() {
        let known = SECTIONS.iter().any(|(name, _)| *name == section);
        let Value::Dict(_, keys) = value else {
            return Err(not_a_section(file, &section, known));
        };
        if !known {
            return Err(unknown_section(file, &section));
        }
        read_section(config, file, &section, &keys)?;
    }
    Ok(())
}

fn read_section(
    config: &mut Config,
    file: &str,
    section: &str,
    keys: &Dict,
) -> Result<(), ConfigError> {
    for (name, value) in keys {
        let path = format!("{section}.{name}");
        let key = find(&path).ok_or_else(|| {
            let near = nearest(name, section_keys(section)).unwrap_or_default();
            ConfigError::Unknown {
                place: file.to_owned(),
                name: path.clone(),
                nearest: format!("{section}.{near}"),
            }
        })?;
        assign(config, key, file, &raw(value))?;
    }
    Ok(())
}

fn section_keys(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter(move |key| key.section == section)
        .map(|key| key.name)
}

fn unknown_section(file: &str, section: &str) -> ConfigError {
    let near = nearest(section, SECTIONS.iter().map(|(name, _)| *name)).unwrap_or_default();
    ConfigError::Unknown {
        place: file.to_owned(),
        name: format!("[{section}]"),
        nearest: format!("[{near}]"),
    }
}

/// A value where a table should stand: most often a key written above its section.
fn not_a_section(file: &str, name: &str, known: bool) -> ConfigError {
    if known {
        return ConfigError::Value {
            place: file.to_owned(),
            key: name.to_owned(),
            value: "a value".to_owned(),
            reason: format!("belongs under a heading [{name}]"),
        };
    }
    let keys = KEYS.iter().map(|key| key.name);
    let near = nearest(name, keys).unwrap_or_default();
    let section = KEYS
        .iter()
        .find(|key| key.name == near)
        .map_or("node", |key| key.section);
    ConfigError::Unknown {
        place: file.to_owned(),
        name: name.to_owned(),
        nearest: format!("{near} under [{section}]"),
    }
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::String(_, text) => Raw::Text(text.clone()),
        Value::Char(_, letter) => Raw::Text(letter.to_string()),
        Value::Num(_, Num::F32(_) | Num::F64(_)) => Raw::Other("a number with a fraction"),
        Value::Num(_, number) => integer(*number),
        Value::Bool(_, truth) => Raw::Truth(*truth),
        Value::Empty(..) => Raw::Other("nothing"),
        Value::Dict(..) => Raw::Other("a table"),
        Value::Array(_, items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts.map_or(Raw::Other("a list of something other than text"), Raw::List)
        }
    }
}

fn integer(number: Num) -> Raw {
    let signed = number.to_i128();
    let unsigned = number
        .to_u128()
        .and_then(|number| i128::try_from(number).ok());
    signed
        .or(unsigned)
        .map_or(Raw::Other("a number out of range"), Raw::Integer)
}

fn read_variable(config: &mut Config, variable: &str, value: &str) -> Result<(), ConfigError> {
    #[cfg(feature = "mutant")]
    if variable == highwater_mutant::VARIABLE {
        return Ok(());
    }
    if !variable.starts_with(PREFIX)
        || OTHER_VARIABLES.contains(&variable)
        || is_service_link(variable, value)
    {
        return Ok(());
    }
    if let Some(key) = KEYS.iter().find(|key| key.variable() == variable) {
        let place = format!("variable {variable}");
        return assign(config, key, &place, &Raw::Text(value.to_owned()));
    }
    let keys: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let names = keys.iter().map(String::as_str).chain(OTHER_VARIABLES);
    let near = nearest(variable, names).unwrap_or_default();
    Err(ConfigError::Unknown {
        place: "the environment".to_owned(),
        name: variable.to_owned(),
        nearest: near.to_owned(),
    })
}

/// Whether an orchestrator put the variable there for a service that happens to have our name.
///
/// Kubernetes gives every container `NAME_SERVICE_HOST`, `NAME_PORT=tcp://…` and the like, and a
/// broker must start beside a service called `highwater`.
fn is_service_link(variable: &str, value: &str) -> bool {
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.contains("_TCP_")
        || variable.contains("_UDP_")
        || value.starts_with("tcp://")
        || value.starts_with("udp://")
}

/// The first and the last telling line of a message of several lines.
fn one_line(message: &str) -> String {
    let mut lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.rfind(|line| !line.contains('|')) {
        Some(last) => format!("{first}: {last}"),
        None => first,
    }
}
