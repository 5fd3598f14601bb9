//! `sidekey completions SHELL`

use clap::Args;
use clap_complete::{Shell, generate};

use super::{CliError, commands};

/// Arguments of `completions`.
#[derive(Args)]
pub struct Arguments {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints what the shell is to load.
#[expect(clippy::unnecessary_wraps, reason = "all commands can fail but this one")]
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut commands(), "sidekey", &mut script);
    // A reader that has gone away is no error.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Ok(())
}
