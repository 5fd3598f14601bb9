//! `sidekey run`: starts a program with what it needs to reach its provider through Sidekey, and with nothing that it could
//! steal. `docs/run.md` says what it gets.
//!
//! In this order: what is wanted ([`crate::launch::plan`]), a server ([`shared_server`]), a handle for this program alone ([`session`]), the
//! files and variables, the program itself, kept apart and waited for (all of [`crate::launch`]). Nothing but its handle is in this process, and other users cannot look into it.

pub mod session;
pub mod shared_server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

use super::{CliError, ConfigArgument};
use crate::config::{self, Outline};
use crate::launch::confined::{Confinement, OURSELVES};
use crate::launch::directory::RunDirectory;
use crate::launch::let_go_of_streams;
use crate::launch::own_user::OwnUser;
use crate::launch::plan::{Plan, Values, Wanted};
use crate::launch::supervise::Signals;
use crate::launch::surroundings::{hidden, inherited, kept, own_home, place_of_siblings};
use crate::launch::variables::{self, Facts};
use crate::model::handle;
use session::{Server, Session};

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
    let directory = RunDirectory::make(Path::new(OURSELVES), place.as_deref(), user.as_ref().map(|user| user.number))?;
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
