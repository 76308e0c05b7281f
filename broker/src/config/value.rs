//! The types a configuration key can have, and how each is read from text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use highwater_proto::{ByteSize, NodeId};

/// The gRPC port, used where an address names none.
pub const GRPC_PORT: u16 = 9094;

/// A value as a source wrote it, before its key gives it a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// Text: from a file's string, the environment or a flag.
    Text(String),
    /// A whole number from a file.
    Integer(i128),
    /// `true` or `false` from a file.
    Truth(bool),
    /// A list of texts from a file.
    List(Vec<String>),
    /// Anything that no key accepts, by the name of its kind.
    Other(&'static str),
}

/// A type that a key can have.
pub trait Setting: Sized {
    /// What a person should write, with an example; part of every refusal and of the reference.
    const EXPECTED: &'static str;

    /// Reads a value, or says why it cannot be one. The reason follows the quoted value.
    ///
    /// # Errors
    /// One clause without the key's name.
    fn read(raw: &Raw) -> Result<Self, String>;

    /// The value as a person would write it.
    fn show(&self) -> String;
}

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The same length as a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Units by suffix, with their factor. Longer suffixes stand before their own endings.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
    ("", 1),
];

/// As [`SIZE_UNITS`]; the factor is in milliseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("", 1),
];

/// Splits off the unit and multiplies; `None` when the text is no whole number with a known unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits
        .replace('_', "")
        .parse::<u64>()
        .ok()?
        .checked_mul(*factor)
}

fn not_a<T: Setting>() -> String {
    format!("is not {}", T::EXPECTED)
}

/// Reads a number with a unit: a bare integer is in the base unit.
fn read_with_unit<T: Setting>(raw: &Raw, units: &[(&str, u64)]) -> Result<u64, String> {
    match raw {
        Raw::Text(text) => with_unit(text, units).ok_or_else(not_a::<T>),
        Raw::Integer(number) => u64::try_from(*number).map_err(|_| not_a::<T>()),
        Raw::Truth(_) | Raw::List(_) | Raw::Other(_) => Err(not_a::<T>()),
    }
}

/// Writes a number with the largest unit that divides it.
fn show_with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .copied()
        .filter(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor)
        .unwrap_or(units[0]);
    format!("{}{}", value / factor, name)
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64MiB\", or a number of bytes";

    fn read(raw: &Raw) -> Result<Self, String> {
        read_with_unit::<Self>(raw, &SIZE_UNITS).map(ByteSize)
    }

    fn show(&self) -> String {
        show_with_unit(
            self.0,
            &[
                ("B", 1),
                ("KiB", 1 << 10),
                ("MiB", 1 << 20),
                ("GiB", 1 << 30),
                ("TiB", 1 << 40),
            ],
        )
    }
}

impl Setting for Millis {
    const EXPECTED: &'static str = "a time such as \"100ms\", \"5s\" or \"1m\", or a number of \
                                    milliseconds";

    fn read(raw: &Raw) -> Result<Self, String> {
        read_with_unit::<Self>(raw, &TIME_UNITS).map(Millis)
    }

    fn show(&self) -> String {
        show_with_unit(
            self.0,
            &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)],
        )
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn read(raw: &Raw) -> Result<Self, String> {
        let number = match raw {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Integer(number) => u32::try_from(*number).ok(),
            Raw::Truth(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        number.ok_or_else(not_a::<Self>)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Truth(truth) => Ok(*truth),
            Raw::Text(text) => text.trim().parse().map_err(|_| not_a::<Self>()),
            Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for NodeId {
    const EXPECTED: &'static str = "a broker number from 1 to 4294967295";

    fn read(raw: &Raw) -> Result<Self, String> {
        match u32::read(raw) {
            Ok(number) if number > 0 => Ok(NodeId(number)),
            _ => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        if self.0 == 0 {
            String::new()
        } else {
            self.0.to_string()
        }
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Ok(text.trim().to_owned()),
            _ => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path such as \"/var/lib/highwater\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            _ => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an IP address with a port such as \"0.0.0.0:9094\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => text.trim().parse().map_err(|_| not_a::<Self>()),
            _ => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A host, by name or number, with a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

impl Address {
    /// Reads `host:port` or `host`, which means port 9094.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            // `[::1]` ends in a bracket: its last colon belongs to the host.
            Some((host, port)) if !text.ends_with(']') => (host, port.parse::<u16>().ok()?),
            _ => (text, GRPC_PORT),
        };
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        let odd = |c: char| c.is_whitespace() || c == '/' || c == ',';
        if host.is_empty() || port == 0 || bare_v6 || host.contains(odd) {
            return None;
        }
        Some(Self(format!("{host}:{port}")))
    }

    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for Option<Address> {
    const EXPECTED: &'static str = "an address such as \"broker-1.example.org:9094\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text.trim().is_empty() => Ok(None),
            Raw::Text(text) => Address::parse(text).map(Some).ok_or_else(not_a::<Self>),
            _ => Err(not_a::<Self>()),
        }
    }

    fn show(&self) -> String {
        self.as_ref()
            .map_or_else(String::new, |address| address.0.clone())
    }
}

impl Setting for Vec<Address> {
    const EXPECTED: &'static str =
        "a list of addresses such as \"broker-1:9094,broker-2:9094,broker-3:9094\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        let parts: Vec<&str> = match raw {
            Raw::Text(text) if text.trim().is_empty() => Vec::new(),
            Raw::Text(text) => text.split(',').collect(),
            Raw::List(items) => items.iter().map(String::as_str).collect(),
            Raw::Integer(_) | Raw::Truth(_) | Raw::Other(_) => return Err(not_a::<Self>()),
        };
        let addresses: Option<Vec<Address>> = parts.into_iter().map(Address::parse).collect();
        addresses.ok_or_else(not_a::<Self>)
    }

    fn show(&self) -> String {
        self.iter()
            .map(Address::as_str)
            .collect::<Vec<_>>()
            .join(",")
    }
}
