//! The command line: one sub-command, one file. `docs/cli.md` describes each.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong, 3 what was named is not there, 4 something
//! that was looked at is not well. What a command was asked for stands on standard output, in text or (`--json`) in JSON; errors,
//! notices and progress stand on standard error, with `--json` as one object of problem details.

mod admin_client;
mod api_keys;
mod audit;
mod backup;
mod ca;
mod check;
mod clients;
mod completions;
mod config;
mod connect;
mod connection_argument;
mod connections;
mod disconnect;
mod doctor;
mod env;
mod grants;
mod handle;
mod init;
mod inspect;
mod keys;
mod man;
mod output;
mod probe;
mod providers;
mod refresh;
mod reload;
mod restore;
mod run;
mod serve;
mod simulate_failure;
mod sites;
mod status;
mod store;
mod validate_all;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};

use crate::base::problem_details::ProblemDetails;
use crate::base::toml_document::Problem;
use crate::config::Settings;
use crate::launch::{LaunchError, confined};
use output::{remark, say};

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
    RunConfined(confined::Arguments),
    /// Say everything that is wrong with a configuration.
    Check(check::Arguments),
    /// Look at everything that Sidekey needs: configuration, store, keys, the hosts of the providers, the clock.
    Doctor(CommonArguments),
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
    /// Show everything about one connection but its tokens.
    Inspect(inspect::Arguments),
    /// Refresh a connection now, whatever the clock says.
    Refresh(refresh::Arguments),
    /// Find out which connections work, without using up what cannot be replaced.
    ValidateAll(validate_all::Arguments),
    /// Ask the provider with a refresh token that it never issued, and show what would become of the connection. Nothing is
    /// changed.
    SimulateFailure(simulate_failure::Arguments),
    /// All connections at once.
    #[command(subcommand)]
    Connections(connections::Command),
    /// End a connection, here at once and at the provider as soon as it listens.
    Disconnect(disconnect::Arguments),
    /// Show the sites, tenants or organizations that a connection may be for, or choose one.
    Sites(sites::Arguments),
    /// Handles: what MCP servers hold instead of a token.
    #[command(subcommand)]
    Handle(handle::Command),
    /// API keys: how programs of partners prove who they are.
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
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
    /// Have the running server read its configuration again, and say what changed or what is wrong.
    Reload(CommonArguments),
    /// What the configuration says, and what a reload would change.
    #[command(subcommand)]
    Config(config::Command),
    /// Show all connections and how they stand.
    Status(status::Arguments),
    /// Whether the store is the right one.
    #[command(subcommand)]
    Store(store::Command),
    /// Write everything that is stored into one file, while all goes on.
    Backup(backup::Arguments),
    /// Put a backup in the place of what is stored; what was there is kept aside.
    Restore(restore::Arguments),
    /// Ask the running server whether it lives, or is ready: for probes of containers.
    Probe(probe::Arguments),
    /// Print what a shell needs to complete command lines.
    Completions(completions::Arguments),
    /// Print the manual page, or write the pages of all commands.
    Man(man::Arguments),
}

/// Which configuration to use.
#[derive(Args, Clone)]
pub struct ConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG, env = "SIDEKEY_CONFIG")]
    config: PathBuf,
}

/// What nearly every command is told: how to answer, and where the configuration is.
#[derive(Args)]
pub struct CommonArguments {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

impl CommonArguments {
    /// The configuration file.
    fn file(&self) -> &Path {
        &self.config.config
    }
}

/// Why a command did not do its work.
pub enum CliError {
    /// The configuration has these problems.
    Config(Vec<Problem>),
    /// The command line asks for something impossible.
    Usage(String),
    /// It was tried and failed.
    Failed(String),
    /// Whoever was asked refused, with these problem details.
    Refused(Box<Value>),
    /// Everything was said already; this is the exit code.
    Said(u8),
}

/// The configuration, where none is named.
const USUAL_CONFIG: &str = "sidekey.toml";

/// The exit code of a command that names something which is not there.
pub const NOT_THERE: u8 = 3;
/// The exit code of a command that has looked at something which is not well.
pub const NOT_WELL: u8 = 4;

/// Runs the program with its arguments, the first one being its own name.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let parsed = Cli::command().try_get_matches_from(&arguments);
    let parsed = parsed.and_then(|matches| Ok((wants_json(&matches), Cli::from_arg_matches(&matches)?)));
    let (json, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() && says_json(&arguments) => {
            return report(&CliError::Usage(on_one_line(&error.render().to_string())), true);
        }
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    // Whatever is created from here on is for its owner alone.
    let callers_umask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let done = match cli.command {
        Command::Run(arguments) => {
            return run::run(&arguments, callers_umask).unwrap_or_else(|error| report(&error, false));
        }
        Command::RunConfined(arguments) => return confined::run(&arguments, callers_umask),
        Command::RunServer(argument) => run::shared_server::run(&argument),
        Command::Env(arguments) => env::run(&arguments),
        Command::Serve(argument) => serve::run(&argument),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Keys(command) => keys::run(&command),
        Command::Providers(command) => providers::run(&command),
        Command::Connect(arguments) => connect::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Refresh(arguments) => refresh::run(&arguments),
        Command::ValidateAll(arguments) => validate_all::run(&arguments),
        Command::SimulateFailure(arguments) => simulate_failure::run(&arguments),
        Command::Connections(command) => connections::run(&command),
        Command::Store(command) => store::run(&command),
        Command::Disconnect(arguments) => disconnect::run(&arguments),
        Command::Sites(arguments) => sites::run(&arguments),
        Command::Handle(command) => handle::run(&command),
        Command::ApiKeys(command) => api_keys::run(&command),
        Command::Clients(command) => clients::run(&command),
        Command::Grants(command) => grants::run(&command),
        Command::Ca(command) => ca::run(&command),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Status(arguments) => status::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, json),
    }
}

/// All commands, with all that they take.
pub fn commands() -> clap::Command {
    Cli::command()
}

/// What is wrong, and what was meant, without how to use the command.
fn on_one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage: "));
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    Vec::from_iter(lines).join(" ").trim_start_matches("error: ").to_owned()
}

/// Whether the innermost command was told to answer in JSON.
fn wants_json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, inner)) => wants_json(inner),
        None => matches.try_get_one::<bool>("json").ok().flatten() == Some(&true),
    }
}

/// The same for a command line that cannot be read. What stands behind `--` is for another program.
fn says_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

impl CliError {
    /// Something that was named is not there, and no server had to be asked.
    fn not_there(slug: &str, title: &'static str, detail: impl Into<String>, next_step: impl Into<String>) -> Self {
        let problem = ProblemDetails::new(slug, 404, title, detail, next_step);
        Self::Refused(Box::new(json!(problem)))
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Refused(problem) if problem["status"] == 404 => NOT_THERE,
            Self::Failed(_) | Self::Refused(_) => 1,
            Self::Said(code) => *code,
        }
    }

    /// Problem details (RFC 9457), as the server's own.
    fn problem(&self) -> Value {
        let of = |kind: &str, title: &str, detail: String| json!({ "type": format!("urn:sidekey:error:{kind}"), "title": title, "detail": detail });
        match self {
            Self::Config(problems) => {
                let told = |problem: &Problem| {
                    json!({ "file": problem.file, "line": problem.line, "column": problem.column, "key": problem.key,
                        "message": problem.message, "hint": problem.hint })
                };
                let mut value = of("configuration", "The configuration is wrong", self.to_string());
                value["problems"] = problems.iter().map(told).collect();
                value
            }
            Self::Usage(message) => of("usage", "The command line is wrong", message.clone()),
            Self::Failed(message) => of("failed", "It failed", message.clone()),
            Self::Refused(problem) => problem.as_ref().clone(),
            Self::Said(_) => Value::Null,
        }
    }
}

impl From<LaunchError> for CliError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Usage(message) => Self::Usage(message),
            LaunchError::Failed(message) => Self::Failed(message),
        }
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
            Self::Refused(problem) => {
                let text = |key: &str| problem[key].as_str().unwrap_or_default();
                write!(formatter, "{} ({})", text("detail").trim_end_matches('.'), text("next_step"))
            }
            Self::Said(code) => write!(formatter, "exit code {code}"),
        }
    }
}

fn report(error: &CliError, json: bool) -> ExitCode {
    let code = ExitCode::from(error.exit_code());
    let told = output::Tone::Bad.paint("error:");
    match error {
        CliError::Said(_) => {}
        _ if json => remark(&error.problem().to_string()),
        CliError::Config(problems) => {
            problems.iter().for_each(|problem| remark(&format!("{told} {problem}")));
            let count = problems.len();
            remark(&format!("{count} problem{} found", if count == 1 { "" } else { "s" }));
        }
        _ => remark(&format!("{told} {error}")),
    }
    code
}

fn load(path: &Path) -> Result<Settings, CliError> {
    crate::config::load(path, &|name| std::env::var(name).ok()).map_err(CliError::Config)
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))
}
