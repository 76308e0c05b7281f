//! Load generator and the project own experiments.
fn main() {}
