//! The simulator as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidekey_simulator::command_line::main(std::env::args_os())
}
