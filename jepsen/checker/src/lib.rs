//! History checkers: pure functions from a history to the anomalies it contains.
