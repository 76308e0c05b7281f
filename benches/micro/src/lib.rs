//! Micro benches of codec, log, segment, index and state machine.
