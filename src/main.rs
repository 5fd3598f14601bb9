//! The `sidekey` program: parses the command line and leaves everything else to the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidekey::cli::main(std::env::args_os())
}
