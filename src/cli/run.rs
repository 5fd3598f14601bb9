//! `sidekey run`: starts a program with what it needs to reach its provider through Sidekey, and with nothing that it could
//! steal. `docs/run.md` says what it gets.
//!
//! In this order: what is wanted ([`plan`]), a server ([`shared_server`]), a handle for this program alone ([`session`]), the
//! files and variables ([`directory`], [`variables`]), the program itself, kept apart ([`confined`]) and waited for
//! ([`supervise`]). Nothing but its handle is in this process, and other users cannot look into it.

pub mod confined;
pub mod directory;
mod own_user;
pub mod plan;
pub mod session;
pub mod shared_server;
mod supervise;
pub mod variables;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

use super::{CliError, ConfigArgument};
use crate::base::files;
use crate::config::{self, Outline};
use crate::model::handle;
use confined::Confinement;
use directory::RunDirectory;
use own_user::OwnUser;
use plan::{Plan, Values, Wanted};
use session::{Server, Session};
use supervise::Signals;
use variables::Facts;

/// Arguments of `run`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Reach no hosts but those of providers and those that the configuration lists.
    #[arg(long)]
    strict: bool,
    /// Say at the end what was refused to the command.
    #[arg(long)]
    explain: bool,
    /// Start the command as the same user, where it can read everything that this user can: keys, tokens, other commands.
    #[arg(long)]
    no_isolation: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// What to start; without it, the recipe's own command.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the program to its end; its exit code is ours.
pub fn run(arguments: &Arguments, callers_umask: Mode) -> Result<ExitCode, CliError> {
    // No core dumps, and no looking into this process.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let outline = config::outline(&arguments.config.config).map_err(CliError::Config)?;
    let plan = Plan::make(&arguments.wanted, &outline)?;
    plan.check_asked(&|name| std::env::var(name).ok())?;
    if arguments.command.is_empty() && plan.recipe.is_none_or(|recipe| recipe.command.is_empty()) {
        return Err(CliError::Usage("what is to be started? sidekey run [OPTIONS] -- CMD ARGS".to_owned()));
    }
    let shared = shared_server::Use::begin(&outline)?;
    let server = Server::find(&outline.admin_socket)?;
    // From here on there is something to clear up: what comes is for the program, once it is there.
    let signals = Signals::hold().map_err(|error| CliError::Failed(format!("cannot hold signals back: {error}")))?;
    let user = match arguments.no_isolation {
        false if rustix::process::geteuid().is_root() => Some(OwnUser::take()?),
        _ => None,
    };
    let place = match user {
        None if !arguments.no_isolation => place_of_siblings(&outline),
        _ => None,
    };
    let directory = RunDirectory::make(place.as_deref(), user.as_ref().map(|user| user.number))?;
    directory.equip(&server.certificates, &|name| std::env::var(name).ok())?;
    let captured = server.captured(&plan)?;
    let session = Session::begin(&server, &plan, !arguments.strict)?;
    let prepared = Prepared { arguments, outline: &outline, plan, server, session, captured, directory, user };
    let ended = prepared.start(&signals, callers_umask);
    prepared.clear_up();
    drop(shared);
    ended.map(ExitCode::from)
}

/// All that a program needs.
struct Prepared<'a> {
    arguments: &'a Arguments,
    outline: &'a Outline,
    plan: Plan<'a>,
    server: Server,
    session: Session,
    captured: BTreeMap<String, String>,
    // In this order: nobody else gets the user while what belongs to it is still there.
    directory: RunDirectory,
    user: Option<OwnUser>,
}

impl Prepared<'_> {
    /// Starts the program, and waits for its end.
    fn start(&self, signals: &Signals, callers_umask: Mode) -> Result<u8, CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot start the command: {error}"));
        let files = self.directory.files().display().to_string();
        let values = Values {
            handle: &self.session.handle,
            egress: &self.server.egress,
            provider: self.plan.provider,
            captured: &self.captured,
            files: &files,
        };
        for (name, content) in self.plan.files(&values)? {
            self.directory.write_file(&name, &content)?;
        }
        let program = match self.arguments.command.as_slice() {
            [] => self.plan.command(&values)?.into_iter().map(OsString::from).collect(),
            command => command.to_vec(),
        };
        let mut command = self.confinement().command(&program);
        command.env_clear().envs(self.environment(&values)?);
        let keeper = self.session.keep();
        umask(callers_umask);
        let child = command.spawn().map_err(|error| failed(&error))?;
        let_go_of_streams();
        let code = signals.supervise(child, false).map_err(|error| failed(&error));
        keeper.stop();
        code
    }

    fn environment(&self, values: &Values<'_>) -> Result<BTreeMap<OsString, OsString>, CliError> {
        let facts = Facts {
            egress: &self.server.egress,
            handle: handle::without_prefix(&self.session.handle),
            directory: self.directory.path(),
            hosts: if self.arguments.strict { "*" } else { &self.server.hosts },
            inherited: &|name| std::env::var(name).ok(),
        };
        let mut environment = inherited(self.outline, self.arguments.no_isolation);
        let set = variables::variables(&facts).into_iter().chain(self.plan.environment(values)?);
        environment.extend(set.map(|(name, value)| (name.into(), value.into())));
        if self.user.is_some() {
            own_home(&mut environment, self.directory.path());
        }
        Ok(environment)
    }

    fn confinement(&self) -> Confinement {
        match &self.user {
            Some(user) => Confinement::OwnUser(user.number),
            None if self.arguments.no_isolation => Confinement::None,
            None => Confinement::Namespaces {
                hide: hidden(self.outline),
                keep: kept(self.outline),
                own: self.directory.path().to_owned(),
            },
        }
    }

    /// Leaves nothing of it: no process, no handle, no file.
    fn clear_up(self) {
        if let Some(user) = &self.user {
            user.end_all();
        }
        self.session.end(self.arguments.explain);
    }
}

/// What the caller has set, without what is secret or leads to somebody who does what the program must not.
fn inherited(outline: &Outline, all: bool) -> BTreeMap<OsString, OsString> {
    const OTHERS: [&str; 3] = ["ALL_PROXY", "all_proxy", "SIDEKEY_CONFIG"];
    const DOORS: [&str; 3] = ["DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"];
    let is_dropped = |name: &OsStr| {
        let secrets = outline.secret_variables.iter().map(String::as_str);
        let doors = if all { &[] } else { DOORS.as_slice() };
        secrets.chain(OTHERS).chain(doors.iter().copied()).any(|dropped| name == dropped)
    };
    std::env::vars_os().filter(|(name, _)| !is_dropped(name)).collect()
}

/// A user of its own has no home but this.
fn own_home(environment: &mut BTreeMap<OsString, OsString>, directory: &Path) {
    environment.retain(|name, _| !name.to_string_lossy().starts_with("XDG_"));
    let own: [(&str, OsString); 4] = [
        ("HOME", directory.join("home").into()),
        ("TMPDIR", directory.join("tmp").into()),
        ("USER", "sidekey".into()),
        ("LOGNAME", "sidekey".into()),
    ];
    environment.extend(own.map(|(name, value)| (name.into(), value)));
}

/// Where programs of the same user have their directories: in the store's, which none of them sees, so that each sees its own and no
/// other. Where the store is somebody else's there is no such place.
fn place_of_siblings(outline: &Outline) -> Option<PathBuf> {
    let place = outline.store_directory.join("runs");
    files::private_directory(&outline.store_directory).and_then(|()| files::private_directory(&place)).ok()?;
    Some(place)
}

/// What a program of the same user must not see: secrets, and the sockets of whoever would start something for it elsewhere.
fn hidden(outline: &Outline) -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let mut paths = vec![outline.store_directory.clone(), outline.admin_socket.clone()];
    paths.extend(outline.secret_files.iter().cloned());
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let named = ["SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "SCREENDIR"].into_iter().filter_map(variable);
    let tmux = variable("TMUX_TMPDIR").map(|directory| directory.join(format!("tmux-{user}")));
    // The socket, and two numbers.
    let in_tmux = std::env::var("TMUX").ok().and_then(|text| text.split(',').next().map(PathBuf::from));
    let docker = std::env::var("DOCKER_HOST").ok().and_then(|url| url.strip_prefix("unix://").map(PathBuf::from));
    let sockets = [
        "/tmp/.X11-unix",
        "/run/docker.sock",
        "/run/containerd",
        "/run/podman",
        "/run/dbus",
        "/run/screen",
        "/tmp/screens",
        "/run/libvirt",
        "/run/incus",
        "/var/lib/incus/unix.socket",
        "/var/lib/lxd/unix.socket",
        "/var/snap/lxd/common/lxd/unix.socket",
    ];
    let of_user = [
        format!("/run/user/{user}"),
        format!("/tmp/tmux-{user}"),
        format!("/tmp/zellij-{user}"),
        format!("/tmp/emacs{user}"),
    ];
    let in_home = variable("HOME")
        .into_iter()
        .flat_map(|home| [".screen", ".docker/run", ".docker/desktop", ".colima"].map(|name| home.join(name)));
    let doors = named.chain(tmux).chain(in_tmux).chain(docker).chain(in_home);
    let doors = doors.chain(sockets.map(PathBuf::from)).chain(of_user.map(PathBuf::from));
    // Whatever a variable says, the program needs these.
    let needed = [std::env::current_dir().unwrap_or_default(), std::env::temp_dir()];
    paths.extend(doors.filter(|door| door.is_absolute() && !needed.iter().any(|needed| needed.starts_with(door))));
    paths
}

/// What it must not change.
fn kept(outline: &Outline) -> Vec<PathBuf> {
    outline.decisive.iter().cloned().chain(std::env::current_exe()).collect()
}

/// From here on the program alone has them: whoever reads what it writes sees when it is done.
fn let_go_of_streams() {
    if let Ok(nothing) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&nothing);
        let _ = nix::unistd::dup2_stdout(&nothing);
    }
}
