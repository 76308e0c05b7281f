//! The Highwater server and its one binary.
