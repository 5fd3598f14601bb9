//! The command line: one sub-command, one file.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong.

mod admin_client;
mod audit;
mod ca;
mod check;
mod clients;
mod connect;
mod disconnect;
mod doctor;
mod env;
mod grants;
mod handle;
mod init;
mod keys;
mod providers;
mod run;
mod serve;
mod sites;
mod status;
mod store;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::base::toml_document::Problem;
use crate::config::{self, Settings};

/// Keeps OAuth away from MCP servers: connects subjects to providers and injects their tokens into API calls.
#[derive(Parser)]
#[command(name = "sidekey", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Serve(ConfigArgument),
    /// Start a program with what it needs to reach its provider through Sidekey, and nothing that it could steal.
    Run(run::Arguments),
    /// Print what `run` would set, for a program that is started elsewhere.
    Env(env::Arguments),
    /// The server that `run`s share where no other runs.
    #[command(hide = true)]
    RunServer(ConfigArgument),
    /// What `run` starts its program through.
    #[command(hide = true)]
    RunConfined(run::confined::Arguments),
    /// Say everything that is wrong with a configuration.
    Check(check::Arguments),
    /// Look at everything that Sidekey needs: configuration, store, keys, the hosts of the providers, the clock.
    Doctor(doctor::Arguments),
    /// Write a working configuration and a key.
    Init(init::Arguments),
    /// Keys that seal what is stored, and keys that sign access tokens.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Provider files: what is bundled, what an entry says, and what is wrong with one.
    #[command(subcommand)]
    Providers(providers::Command),
    /// Print a one-time link that connects a subject to a provider.
    Connect(connect::Arguments),
    /// End a connection, here at once and at the provider as soon as it listens.
    Disconnect(disconnect::Arguments),
    /// Show the sites, tenants or organizations that a connection may be for, or choose one.
    Sites(sites::Arguments),
    /// Handles: what MCP servers hold instead of a token.
    #[command(subcommand)]
    Handle(handle::Command),
    /// MCP clients that the operator registers.
    #[command(subcommand)]
    Clients(clients::Command),
    /// Grants: which MCP clients act for whom.
    #[command(subcommand)]
    Grants(grants::Command),
    /// The local authority, whose certificates stand in for those of providers.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Show what was done: one line for every OAuth operation.
    Audit(audit::Arguments),
    /// Show all connections and how they stand.
    Status(status::Arguments),
    /// Whether the store is the right one.
    #[command(subcommand)]
    Store(store::Command),
}

/// Which configuration to use.
#[derive(Args, Clone)]
pub struct ConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "sidekey.toml", env = "SIDEKEY_CONFIG")]
    config: PathBuf,
}

/// Why a command did not do its work.
pub enum CliError {
    /// The configuration has these problems.
    Config(Vec<Problem>),
    /// The command line asks for something impossible.
    Usage(String),
    /// It was tried and failed.
    Failed(String),
}

/// Runs the program with its arguments, the first one being its own name.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    // Whatever is created from here on is for its owner alone.
    let callers_umask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let done = match cli.command {
        Command::Run(arguments) => return run::run(&arguments, callers_umask).unwrap_or_else(|error| report(&error)),
        Command::RunConfined(arguments) => return run::confined::run(&arguments, callers_umask),
        Command::RunServer(argument) => run::shared_server::run(&argument),
        Command::Env(arguments) => env::run(&arguments),
        Command::Serve(argument) => serve::run(&argument),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Keys(command) => keys::run(&command),
        Command::Providers(command) => providers::run(&command),
        Command::Connect(arguments) => connect::run(&arguments),
        Command::Store(command) => store::run(&command),
        Command::Disconnect(arguments) => disconnect::run(&arguments),
        Command::Sites(arguments) => sites::run(&arguments),
        Command::Handle(command) => handle::run(&command),
        Command::Clients(command) => clients::run(&command),
        Command::Grants(command) => grants::run(&command),
        Command::Ca(command) => ca::run(&command),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(problems) => {
                let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
                formatter.write_str(&problems.join("; "))
            }
            Self::Usage(message) | Self::Failed(message) => formatter.write_str(message),
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where the program speaks to people")]
fn report(error: &CliError) -> ExitCode {
    match error {
        CliError::Config(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            let count = problems.len();
            eprintln!("{count} problem{} found", if count == 1 { "" } else { "s" });
            ExitCode::from(2)
        }
        CliError::Usage(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        CliError::Failed(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Settings, CliError> {
    config::load(path, &|name| std::env::var(name).ok()).map_err(CliError::Config)
}

/// Writes a line for people or programs. A reader that has gone away is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))
}
