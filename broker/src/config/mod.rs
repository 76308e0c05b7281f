//! The configuration of a broker: one file, the environment, flags.
//!
//! Flags beat the environment, which beats the file, which beats the defaults. A name that does
//! not exist is an error that names the nearest one that does. Nothing here touches a file or the
//! environment: the caller hands over what it read.

mod keys;
mod nearest;
mod reference;
mod source;
mod validate;
mod value;

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

pub use keys::{
    ADMIN_PORT, Compaction, Defaults, Groups, KEYS, Key, Limits, Listen, Node, Raft, Repair,
    SECTIONS, Scrub, Storage, Wal,
};
pub use nearest::nearest;
pub use reference::reference;
pub use source::Sources;
pub use value::{Address, GRPC_PORT, Millis, Raw, Setting};

/// Everything a broker can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Who this broker is, and whom it forms a cluster with.
    pub node: Node,
    /// Where it listens.
    pub listen: Listen,
    /// The write-ahead log.
    pub wal: Wal,
    /// Partition files and checkpoints.
    pub storage: Storage,
    /// Elections.
    pub raft: Raft,
    /// Bounds on memory and connections.
    pub limits: Limits,
    /// Looking for rot.
    pub scrub: Scrub,
    /// Compaction.
    pub compaction: Compaction,
    /// What is done about damage.
    pub repair: Repair,
    /// Consumer groups.
    pub groups: Groups,
    /// What a new topic gets when its creator does not say.
    pub defaults: Defaults,
}

/// Why a configuration is refused. Each message is one line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{file} is not valid TOML: {reason}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What the reader found, and where.
        reason: String,
    },
    /// There is no such section, key or variable.
    #[error("{place} sets {name}, which does not exist; did you mean {nearest}?")]
    Unknown {
        /// Where it was set.
        place: String,
        /// What was set.
        name: String,
        /// The nearest name that exists.
        nearest: String,
    },
    /// A value has the wrong type.
    #[error("{place} sets {key} to {value}, which {reason}")]
    Value {
        /// Where it was set.
        place: String,
        /// The key.
        key: String,
        /// The value, quoted.
        value: String,
        /// What it should have been.
        reason: String,
    },
    /// A value is of the right type but cannot work.
    #[error("{key} {problem}: {cure}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        cure: String,
    },
}

impl Config {
    /// Reads every source over the defaults and checks the outcome.
    ///
    /// # Errors
    /// The first problem found: in the file, then the environment, then the flags, then between
    /// keys.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config = source::read(sources)?;
        validate::validate(&config)?;
        Ok(config)
    }

    /// Checks the rules between keys, for a configuration that was put together in code.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::validate(self)
    }

    /// Where clients and other brokers reach this broker, as `host:port`.
    ///
    /// `bound` is the address the gRPC listener really has, which differs from `listen.grpc` when
    /// that asked for any free port.
    #[must_use]
    pub fn advertised(&self, bound: std::net::SocketAddr) -> String {
        match &self.node.advertised_address {
            Some(address) => address.as_str().to_owned(),
            // Validation allows this only for a broker alone: its clients are on this machine.
            None if bound.ip().is_unspecified() => format!("127.0.0.1:{}", bound.port()),
            None => bound.to_string(),
        }
    }
}
