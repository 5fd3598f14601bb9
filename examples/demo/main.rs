//! The main job on loopback, no account needed: a simulated QuickBooks, a small MCP server that knows nothing of OAuth,
//! and Sidekey, as three separate processes. The demo starts them, walks the journeys, and checks what it promises.
//!
//! * `--once` ends after the journeys; the exit code says whether all was as it should be.
//! * `--json` prints one JSON object for programs: with `--once` the result, without it where everything is.

mod authorization;
mod browser;
mod callback;
mod check;
mod journey;
mod mcp_client;
mod mcp_server;
mod narrator;
mod page;
mod people;
mod processes;
mod stay;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

#[derive(Parser)]
#[command(name = "demo", about = "Connect QuickBooks once; inject and refresh for ever")]
struct Arguments {
    /// Walk the journeys and end.
    #[arg(long)]
    once: bool,
    /// Speak JSON.
    #[arg(long)]
    json: bool,
    /// How long the simulated access tokens live, in seconds [default: 3 with --once, else 60].
    #[arg(long, value_name = "SECONDS")]
    access_lifetime: Option<f64>,
    /// Put a token where it must not be, to see that it is found.
    #[arg(long, hide = true)]
    plant: Option<Plant>,
}

/// Where a token is put on purpose.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// A token of the provider, into what the MCP server receives.
    McpServer,
    /// A token of an MCP client, into the same.
    McpToken,
    /// A token of the provider, into a file.
    Disk,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // The demo starts itself again for each of the three processes.
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("process:sidekey") => sidekey::cli::main(std::iter::once("sidekey".into()).chain(arguments)),
        Some("process:simulator") => processes::simulator(arguments),
        Some("process:mcp-server") => mcp_server::main(),
        _ => demo(&Arguments::parse()),
    }
}

fn demo(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(journey::walk(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the demo speaks to people")]
fn failed(error: &str) -> ExitCode {
    eprintln!("the demo failed: {error}");
    ExitCode::FAILURE
}
