//! The program `highwater-jepsen`: the same commands as `highwater verify`.

use std::process::ExitCode;

fn main() -> ExitCode {
    highwater_jepsen::cli::main()
}
