//! The server of those `run`s that found none: one for all of them, started by the first and gone after the last.
//!
//! Every `run` holds a shared lock on a file in the store's directory as long as it lives, however it ends. The server waits
//! for an exclusive one, which it gets when there is nobody left, and keeps it until it has ended: a `run` that comes
//! meanwhile waits, finds no server, and starts another.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::base::files;
use crate::cli::{CliError, ConfigArgument, load, runtime, serve};
use crate::config::{Outline, Settings};
use crate::launch::let_go_of_streams;
use crate::server::{self, Environment};

/// Locked by all `run`s while they live.
const USERS: &str = "run.users";
/// Locked by the one that looks for a server.
const START: &str = "run.start";
/// What the server has to say.
pub const LOG: &str = "run.log";

/// Keeps the shared server from ending.
pub struct Use {
    _users: File,
}

impl Use {
    /// Makes sure that a server runs, and stays as long as this does if it is a shared one.
    pub fn begin(outline: &Outline) -> Result<Self, CliError> {
        let directory = &outline.store_directory;
        let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", directory.display()));
        if is_there(&outline.admin_socket)? && files::private_directory(directory).is_err() {
            // A server that somebody else takes care of.
            return File::open("/dev/null").map(|nothing| Self { _users: nothing }).map_err(failed);
        }
        files::private_directory(directory).map_err(failed)?;
        let start = files::open_private(&directory.join(START)).map_err(failed)?;
        flock(&start, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let users = files::open_private(&directory.join(USERS)).map_err(failed)?;
        flock(&users, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
        if !is_there(&outline.admin_socket)? {
            start_server(outline)?;
        }
        Ok(Self { _users: users })
    }
}

fn is_there(socket: &Path) -> Result<bool, CliError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => Ok(false),
        Err(error) => Err(CliError::Failed(format!(
            "{}: {error}; `sidekey run` is for whoever may use the server's admin socket",
            socket.display()
        ))),
    }
}

fn start_server(outline: &Outline) -> Result<(), CliError> {
    let path = outline.store_directory.join(LOG);
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot start a server: {error}"));
    let log = files::append_private(&path).map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["run-server", "--config"]).arg(&outline.file).current_dir("/");
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(answer) = server.stdout.take() {
        BufReader::new(answer).read_line(&mut line).map_err(failed)?;
    }
    let answer: Value = serde_json::from_str(&line).unwrap_or_default();
    if answer["ready"] == true {
        return Ok(());
    }
    let why = answer["error"].as_str().map_or_else(|| format!("it ended; see {}", path.display()), str::to_owned);
    Err(CliError::Failed(format!("no server runs, and none can be started: {why}")))
}

/// `sidekey run-server`
pub fn run(argument: &ConfigArgument) -> Result<(), CliError> {
    // The keys of a terminal are for the programs on it.
    let _ = nix::unistd::setsid();
    let served = serve_users(argument);
    if let Err(error) = &served {
        tell(&json!({ "error": error.to_string() }));
    }
    served
}

fn serve_users(argument: &ConfigArgument) -> Result<(), CliError> {
    let mut settings = load(&argument.config)?;
    serve::prepare(&settings);
    take_free_ports(&mut settings);
    let failed = |error: server::StartError| CliError::Failed(error.to_string());
    let users = files::open_private(&settings.store_directory.join(USERS));
    let users = users.map_err(|error| CliError::Failed(error.to_string()))?;
    let (last_has_gone, over) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let locked = flock(&users, FlockOperation::LockExclusive);
        // The lock is kept until the process has ended.
        let _ = last_has_gone.send(locked.map(|()| users));
    });
    let mut lock = None;
    let environment = Environment::system(&settings).map_err(failed)?;
    let ready = || tell(&json!({ "ready": true }));
    let over = async { lock = over.await.ok() };
    let runtime = runtime(settings.threads)?;
    serve::to_the_end(runtime, server::run_until(settings, environment, ready, over)).map_err(failed)?;
    drop(lock);
    Ok(())
}

/// One line for whoever started this, and then no more.
fn tell(answer: &Value) {
    let _ = writeln!(std::io::stdout(), "{answer}");
    let_go_of_streams();
}

/// What the configuration names if it is free, and anything on this machine if not: somebody else may have it, and the
/// programs are told where to go.
fn take_free_ports(settings: &mut Settings) {
    let others = [&mut settings.public.listen, &mut settings.metrics_listen];
    for address in settings.egress.listen.iter_mut().chain(others) {
        if TcpListener::bind(*address).is_err() {
            *address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        }
    }
}
