//! Faults strike, and are counted.
