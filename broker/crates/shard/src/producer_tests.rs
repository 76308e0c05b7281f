//! Tests of `producer`.
