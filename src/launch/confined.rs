//! What `sidekey run` starts its program through: this becomes, step by step, somebody who cannot reach Sidekey's secrets,
//! and then the program. It holds nothing but what the program holds.
//!
//! As root the program gets a user of its own. Others cannot change users: theirs gets namespaces of its own, in which
//! neither other processes nor the places of secrets are to be seen. That takes two more processes: one that makes the
//! namespaces (`outside`), and the first one in them (`inside`), which starts the program and stays.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};
use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope,
};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, Gid, Pid, Uid, access, getgid, getuid, setgid, setgroups, setsid, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::bounds::Bounds;
use super::directory;
use super::keyrings;
use super::supervise::Signals;

/// Arguments of `run-confined`. Everybody can see them; there is nothing secret in them.
#[derive(Args)]
pub struct Arguments {
    /// What to become.
    #[arg(long = "as")]
    role: Role,
    /// The process that this one does not outlive.
    #[arg(long, default_value_t = 0)]
    parent: u32,
    /// Whether the program is to be kept from typing into the terminal.
    #[arg(long)]
    alone: bool,
    /// The user and the group to become.
    #[arg(long, default_value_t = 0)]
    user: u32,
    /// What is not to be seen.
    #[arg(long)]
    hide: Vec<PathBuf>,
    /// What is not to be written.
    #[arg(long)]
    keep: Vec<PathBuf>,
    /// What is to be seen even where its surroundings are not.
    #[arg(long)]
    own: Option<PathBuf>,
    #[command(flatten)]
    bounds: Bounds,
    /// The program.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What to become.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The program, as the same user as before.
    Unconfined,
    /// The program, as a user of its own.
    OwnUser,
    /// What makes namespaces.
    Outside,
    /// The first process in them.
    Inside,
    /// Nothing: ends all processes of the user.
    Sweeper,
    /// Nothing: removes what a program has written into its own directory.
    Remover,
}

/// How a program is kept apart.
#[derive(Clone, Debug)]
pub enum Confinement {
    /// Not at all.
    None,
    /// As this user.
    OwnUser(u32),
    /// By namespaces, in which these are not to be seen and those not to be written.
    Namespaces {
        /// Files and directories with secrets.
        hide: Vec<PathBuf>,
        /// Files and directories that decide where tokens go.
        keep: Vec<PathBuf>,
        /// The program's own directory, which it sees wherever it lies.
        own: PathBuf,
    },
}

impl Confinement {
    /// The command that starts `program`.
    pub fn command(&self, program: &[OsString]) -> Command {
        self.bounded_command(Path::new(OURSELVES), &Bounds::default(), program)
    }

    /// The same within bounds, by way of the Sidekey at `ourselves`.
    pub fn bounded_command(&self, ourselves: &Path, bounds: &Bounds, program: &[OsString]) -> Command {
        let mut command = confined(ourselves);
        command.args(["--parent", &std::process::id().to_string()]);
        match self {
            Self::None => drop(command.args(["--as", "unconfined"])),
            Self::OwnUser(user) => drop(command.args(["--as", "own-user", "--user", &user.to_string()])),
            Self::Namespaces { hide, keep, own } => {
                command.args(["--as", "outside"]);
                add_paths(&mut command, hide, keep, Some(own));
            }
        }
        bounds.add_to(&mut command);
        command.arg("--").args(program);
        command
    }
}

/// This very program, whatever its file is called.
pub const OURSELVES: &str = "/proc/self/exe";

/// `run-confined` of the Sidekey at this path.
pub(super) fn confined(sidekey: &Path) -> Command {
    let mut command = Command::new(sidekey);
    command.arg0("sidekey").arg("run-confined");
    command
}

fn ourselves() -> Command {
    confined(Path::new(OURSELVES))
}

fn add_paths(command: &mut Command, hide: &[PathBuf], keep: &[PathBuf], own: Option<&PathBuf>) {
    for (option, paths) in
        [("--hide", hide), ("--keep", keep), ("--own", own.map(std::slice::from_ref).unwrap_or_default())]
    {
        for path in paths {
            command.arg(option).arg(path);
        }
    }
}

/// Becomes what is asked for. Exit codes as shells have them: 126 if the program cannot be started, 127 if there is none.
pub fn run(arguments: &Arguments, callers_umask: rustix::fs::Mode) -> ExitCode {
    rustix::process::umask(callers_umask);
    // Whoever started this holds signals back for itself, and so would everything that it starts.
    let _ = SigSet::empty().thread_set_mask();
    let failed = match arguments.role {
        Role::Unconfined => outlive_nobody(arguments.parent)
            .and_then(|()| if arguments.alone { leave_terminal() } else { Ok(()) })
            .err()
            .map_or_else(|| start(arguments, None), |why| (1, why)),
        Role::OwnUser => own_user(arguments),
        Role::Outside => match outside(arguments) {
            Ok(code) => return ExitCode::from(code),
            Err(why) => (1, why),
        },
        Role::Inside => match inside(arguments) {
            Ok(code) => return ExitCode::from(code),
            Err(failed) => failed,
        },
        Role::Sweeper => match become_user(arguments.user).and_then(|()| sweep()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(why) => (1, why),
        },
        Role::Remover => match remove(arguments) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(why) => (1, why),
        },
    };
    let (code, why) = failed;
    complain(&why);
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "the program's own place to complain")]
fn complain(why: &str) {
    eprintln!("error: {why}");
}

type Failed = (u8, String);

/// Starts the program in the place of this process; returns only if that fails.
fn start(arguments: &Arguments, user: Option<u32>) -> Failed {
    if let Err(why) = arguments.bounds.keep() {
        return (1, why);
    }
    let (program, rest) = arguments.command.split_first().expect("required");
    let error = Command::new(program).args(rest).exec();
    not_started(program, &error, user)
}

fn not_started(program: &OsStr, error: &std::io::Error, user: Option<u32>) -> Failed {
    let name = program.display();
    let is_forbidden = error.kind() == std::io::ErrorKind::PermissionDenied;
    // A directory of PATH that is closed hides what it holds.
    if error.kind() == std::io::ErrorKind::NotFound || (is_forbidden && !is_seen(program)) {
        let by =
            user.map_or_else(String::new, |user| format!(" that user {user}, as which commands run here, can see"));
        return (127, format!("{name}: there is no such command{by}"));
    }
    match user.filter(|_| is_forbidden) {
        Some(user) => (
            126,
            format!(
                "{name} cannot be started by user {user}, as which commands run here: it, or a directory above it, is closed to \
                 others. Install it where everybody may read, or use --no-isolation"
            ),
        ),
        None => (126, format!("{name} cannot be started: {error}")),
    }
}

fn is_seen(program: &OsStr) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_name = Path::new(program).components().count() == 1;
    !is_name || std::env::split_paths(&paths).any(|directory| directory.join(program).exists())
}

fn own_user(arguments: &Arguments) -> Failed {
    let user = arguments.user;
    // The last program of this user may have left some there. A container may forbid it.
    let _ = unshare(CloneFlags::CLONE_NEWIPC);
    limit_capabilities();
    // While this is root: how many keys others of this user have left somewhere does not count then.
    if let Err(why) = keyrings::leave_session()
        .and_then(|()| become_user(user))
        .and_then(|()| outlive_nobody(arguments.parent))
        .and_then(|()| leave_terminal())
        .and_then(|()| give_up_privileges(&arguments.bounds))
    {
        return (1, why);
    }
    keyrings::empty_those_of_user();
    let directory = std::env::current_dir().unwrap_or_default();
    if access(&directory, AccessFlags::X_OK).is_err() {
        return (
            126,
            format!(
                "user {user}, as which commands run here, cannot enter {}. Start it in a directory that everybody may enter, such as \
             /, or use --no-isolation",
                directory.display()
            ),
        );
    }
    start(arguments, Some(user))
}

fn become_user(user: u32) -> Result<(), String> {
    let failed = |error: Errno| {
        format!(
            "cannot become user {user}: {error}. In a container, allow the capabilities SETUID and SETGID, or use --no-isolation"
        )
    };
    setgroups(&[]).map_err(failed)?;
    setgid(Gid::from_raw(user)).map_err(failed)?;
    setuid(Uid::from_raw(user)).map_err(failed)
}

fn sweep() -> Result<(), String> {
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// With little for itself, whatever there is to be removed. A program without isolation may have left somebody who goes on writing.
fn remove(arguments: &Arguments) -> Result<(), String> {
    const LIMITS: [(Resource, u64); 2] = [(Resource::Nofile, 32), (Resource::Cpu, 600)];
    for (resource, number) in LIMITS {
        let number = getrlimit(resource).maximum.map_or(number, |most| most.min(number));
        let limit = Rlimit { current: Some(number), maximum: Some(number) };
        setrlimit(resource, limit).map_err(|error| format!("cannot limit itself: {error}"))?;
    }
    if arguments.user != 0 {
        become_user(arguments.user)?;
    }
    arguments.own.iter().try_for_each(|own| directory::empty(own))
}

/// Dies with the process that started this one.
fn outlive_nobody(parent: u32) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    if parent == 0 || parent_id() == parent { Ok(()) } else { Err("whoever started this has ended".to_owned()) }
}

/// What a program types into its terminal (TIOCSTI) is read by the shell of whoever started it, as soon as it has ended. Where
/// the kernel allows that, the program gets a session of its own, without a terminal.
fn leave_terminal() -> Result<(), String> {
    let setting = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    let has_none = |error: std::io::Error| error.raw_os_error() == Some(Errno::ENXIO as i32);
    if setting.is_ok_and(|value| value.trim() == "0") || File::open("/dev/tty").is_err_and(has_none) {
        return Ok(());
    }
    setsid().map(drop).map_err(|error| format!("cannot leave the terminal: {error}"))
}

/// No program that is started from here on gets any, whatever its file says.
fn limit_capabilities() {
    for capability in CapabilitySet::all().iter() {
        // What the kernel does not know, or this process may not take away, it does not have either.
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// Nothing that is started from here on gets more than it has; nothing outside gets its signals and abstract sockets.
fn give_up_privileges(bounds: &Bounds) -> Result<(), String> {
    let failed = |error: &dyn Display| format!("cannot give up privileges: {error}");
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| failed(&error))?;
    prctl::set_no_new_privs().map_err(|error| failed(&error))?;
    let root = match bounds.write_in {
        Some(_) => Some(PathFd::new("/").map_err(|error| failed(&error))?),
        None => None,
    };
    scope(root).map_err(|error| failed(&error))
}

/// Kernels before 6.12 cannot; users and namespaces do the most of it.
///
/// Where writing is confined as well, by a layer of its own, files move between directories only if every layer lets them:
/// this one does, everywhere below `root`. It has no other word on files, so that programs elsewhere may mount in namespaces of their
/// own, which whoever is held to rules on files may not.
fn scope(root: Option<PathFd>) -> Result<(), RulesetError> {
    let scoped = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let scoped = scoped.scope(Scope::AbstractUnixSocket)?.scope(Scope::Signal)?;
    let scoped = match root {
        Some(root) => {
            scoped.handle_access(AccessFs::Refer)?.create()?.add_rule(PathBeneath::new(root, AccessFs::Refer))?
        }
        None => scoped.create()?,
    };
    scoped.restrict_self().map(drop)
}

fn outside(arguments: &Arguments) -> Result<u8, String> {
    let (user, group) = (getuid(), getgid());
    let flags =
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    let refused = |error: &dyn Display| {
        format!(
            "the command cannot be kept from Sidekey's secrets: this system lets ordinary users make no namespaces ({error}). \
             Allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns; in a container its seccomp profile), run as root, or use \
             --no-isolation, with which the command could read keys and tokens"
        )
    };
    unshare(flags).map_err(|error| refused(&error))?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ];
    for (file, content) in maps {
        std::fs::write(format!("/proc/self/{file}"), content).map_err(|error| refused(&error))?;
    }
    let signals = Signals::hold().map_err(|error| error.to_string())?;
    outlive_nobody(arguments.parent)?;
    hand_on_capabilities().map_err(|error| format!("cannot set up namespaces: {error}"))?;
    let mut inside = ourselves();
    inside.args(["--as", "inside"]);
    add_paths(&mut inside, &arguments.hide, &arguments.keep, arguments.own.as_ref());
    arguments.bounds.add_to(&mut inside);
    let inside = inside.arg("--").args(&arguments.command).spawn().map_err(|error| error.to_string())?;
    super::let_go_of_streams();
    signals.supervise(inside, false).map_err(|error| error.to_string())
}

/// What makes mounts in the new namespaces, and gives up the rest there: an ordinary user loses it when it starts a program.
fn hand_on_capabilities() -> rustix::io::Result<()> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP;
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: needed, ..sets })?;
    needed.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
}

fn inside(arguments: &Arguments) -> Result<u8, Failed> {
    let failed = |why: String| (1, why);
    let signals = Signals::hold().map_err(|error| (1, error.to_string()))?;
    outlive_nobody(0).map_err(failed)?;
    let directory = std::env::current_dir().map_err(|error| (1, format!("the working directory: {error}")))?;
    set_the_scene(arguments).map_err(failed)?;
    // What it was before may lie under what has been put over it.
    std::env::set_current_dir(&directory).map_err(|error| (1, format!("{}: {error}", directory.display())))?;
    limit_capabilities();
    keyrings::leave_session().map_err(failed)?;
    give_up_privileges(&arguments.bounds).map_err(failed)?;
    let mut program = ourselves();
    program.args(["--as", "unconfined", "--alone"]);
    arguments.bounds.add_to(&mut program);
    program.arg("--").args(&arguments.command);
    let child = program.spawn().map_err(|error| (1, error.to_string()))?;
    super::let_go_of_streams();
    signals.supervise(child, true).map_err(|error| (1, error.to_string()))
}

/// What the program sees of the file system.
fn set_the_scene(arguments: &Arguments) -> Result<(), String> {
    const NOTHING: Option<&str> = None;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let done = |path: &Path, result: nix::Result<()>| {
        result.map_err(|error| format!("cannot keep the command from {}: {error}; see --no-isolation", path.display()))
    };
    let root = Path::new("/");
    let own = arguments.own.as_ref().and_then(|own| own.canonicalize().ok());
    let opened = own.as_ref().map(File::open).transpose().map_err(|error| format!("its own directory: {error}"))?;
    let hidden: Vec<PathBuf> = arguments.hide.iter().filter_map(|path| path.canonicalize().ok()).collect();
    done(root, mount(NOTHING, root, NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING))?;
    done(Path::new("/proc"), mount(Some("proc"), "/proc", Some("proc"), quiet, NOTHING))?;
    for path in arguments.keep.iter().filter_map(|path| path.canonicalize().ok()) {
        done(&path, mount(Some(&path), &path, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING))?;
        // What was forbidden there before stays so, or the kernel refuses.
        let before = statvfs(&path).map_err(|error| error.to_string())?.flags();
        let kept = [
            (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
            (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
            (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
            (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
            (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
            (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        ];
        let kept = kept
            .into_iter()
            .filter(|(flag, _)| before.contains(*flag))
            .fold(MsFlags::empty(), |all, (_, flag)| all | flag);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | kept;
        done(&path, mount(NOTHING, &path, NOTHING, flags, NOTHING))?;
    }
    // Last, so that nothing brings them back. What lies in another one is gone with it.
    for path in hidden.iter().filter(|path| path.exists()) {
        let over = if path.is_dir() {
            mount(Some("none"), path, Some("tmpfs"), quiet | MsFlags::MS_RDONLY, Some("size=4k,mode=0555"))
        } else {
            mount(Some("/dev/null"), path, NOTHING, MsFlags::MS_BIND, NOTHING)
        };
        done(path, over)?;
    }
    let (Some(own), Some(opened)) = (own, opened) else { return Ok(()) };
    let Some(over) = hidden.iter().filter(|path| own.starts_with(path)).min_by_key(|path| path.as_os_str().len())
    else {
        return Ok(());
    };
    // Its own directory, and nothing beside it.
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    done(over, mount(Some("none"), over, Some("tmpfs"), quiet, Some("size=4k,mode=0755")))?;
    std::fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    done(&own, mount(Some(&source), &own, NOTHING, MsFlags::MS_BIND, NOTHING))?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    done(over, mount(NOTHING, over, NOTHING, read_only | quiet, NOTHING))
}
