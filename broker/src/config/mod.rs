//! The configuration of a broker: one file, the environment, flags.
