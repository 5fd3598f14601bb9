//! Programs under `sidekey run`, as root and as an ordinary user.

use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use sidekey_simulator::Simulator;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::world::{Files, Setup, World, admin, eventually};

/// Nobody in particular.
pub const ORDINARY: u32 = 65_534;

/// Who calls `sidekey run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Root,
    Ordinary,
}

/// Those that can be tried: root can be anybody.
pub fn callers() -> Vec<Caller> {
    if is_root() { vec![Caller::Root, Caller::Ordinary] } else { vec![Caller::Ordinary] }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A store in which alice and bob are connected to GitHub and QuickBooks, and no server.
pub struct Place {
    pub simulator: Simulator,
    pub files: Files,
    caller: Caller,
}

/// A program under `sidekey run`.
pub struct Running {
    pub child: Child,
    pub input: ChildStdin,
    pub lines: Lines<BufReader<ChildStdout>>,
}

impl Place {
    pub async fn of(caller: Caller) -> Self {
        Self::with(caller, Setup::default()).await
    }

    pub async fn with(caller: Caller, setup: Setup) -> Self {
        let world = World::of_real_hosts(setup).await;
        for subject in ["alice", "bob"] {
            world.connect("github", subject).await;
            world.connect("quickbooks", subject).await;
        }
        let World { simulator, files, sidekey, .. } = world;
        sidekey.stop().await;
        if is_root() && caller == Caller::Ordinary {
            give(files.home.path());
        }
        Self { simulator, files, caller }
    }

    pub fn socket(&self) -> PathBuf {
        self.files.data().join("admin.sock")
    }

    /// `sidekey` by the caller, in a directory that everybody may enter.
    pub fn sidekey(&self, arguments: &[&str]) -> Command {
        // Whatever runs the tests may have signals ignored (a job in the background of a shell), and programs inherit that.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=HUP,INT,QUIT").arg(binary());
        let config = self.files.config.to_str().expect("text");
        command.arg(arguments[0]).args(["--config", config]).args(&arguments[1..]);
        command.current_dir("/").kill_on_drop(true).stdin(Stdio::null()).env_remove("SIDEKEY_CONFIG");
        if is_root() && self.caller == Caller::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY).env("HOME", self.files.home.path());
        }
        command
    }

    /// The same on a terminal, whose output is printed.
    pub fn on_terminal(&self, arguments: &[&str]) -> Command {
        const TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let inner = self.sidekey(arguments);
        let mut command = Command::new("/usr/bin/env");
        command.args(["python3", "-c", TERMINAL]).arg(inner.as_std().get_program()).args(inner.as_std().get_args());
        command.current_dir("/").kill_on_drop(true).stdin(Stdio::null()).env_remove("SIDEKEY_CONFIG");
        if is_root() && self.caller == Caller::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY).env("HOME", self.files.home.path());
        }
        command
    }

    /// Runs a shell script to its end.
    pub async fn run(&self, options: &[&str], script: &str) -> Output {
        let arguments = [&["run", "--subject", "alice"], options, &["--", "sh", "-c", script]].concat();
        self.sidekey(&arguments).output().await.expect("it runs")
    }

    /// Starts a shell script.
    pub fn start(&self, options: &[&str], script: &str) -> Running {
        let arguments = [&["run", "--subject", "alice"], options, &["--", "sh", "-c", script]].concat();
        running(self.sidekey(&arguments))
    }

    /// What the server knows of handles.
    pub async fn handles(&self) -> Vec<serde_json::Value> {
        let answer = admin(&self.socket(), "GET", "/v1/handles", "").await.json();
        answer["handles"].as_array().cloned().expect("a list")
    }

    pub async fn server_is_gone(&self) {
        let socket = self.socket();
        eventually("the server is gone", async || server_processes(&self.files.config).is_empty() && !socket.exists())
            .await;
    }
}

/// Starts a command whose input and output are ours.
pub fn running(mut command: Command) -> Running {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    Running { child, input, lines: BufReader::new(output).lines() }
}

impl Running {
    /// What it says next.
    pub async fn line(&mut self) -> String {
        self.lines.next_line().await.expect("text").expect("a line")
    }

    /// Lets a script go on that waits in `read`.
    pub async fn go_on(&mut self) {
        self.input.write_all(b"\n").await.expect("it listens");
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("it runs"), signal).expect("sent");
    }

    /// The exit code, in time.
    pub async fn code(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), self.child.wait()).await;
        ended.expect("in time").expect("it ends").code()
    }
}

/// The shared servers of a configuration.
pub fn server_processes(config: &Path) -> Vec<rustix::process::Pid> {
    let config = config.to_str().expect("text").as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("there").filter_map(Result::ok) {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.contains(&b"run-server".as_slice()) && words.contains(&config) {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(number.and_then(rustix::process::Pid::from_raw));
        }
    }
    found
}

/// Puts a key into a new session keyring, which this thread has from here on and whatever it starts inherits. Whether there are
/// keyrings: a container may forbid them.
pub fn keep_in_keyring(name: &str, content: &str) -> bool {
    let Ok(mut session) = keyutils::Keyring::join_anonymous_session() else { return false };
    session.add_key::<keyutils::keytypes::User, _, _>(name, content.as_bytes()).expect("added");
    true
}

/// The program, where everybody may start it.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<(PathBuf, Option<tempfile::TempDir>)> = OnceLock::new();
    let (path, _) = BINARY.get_or_init(|| {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_sidekey"));
        let is_open = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o001 != 0);
        if built.ancestors().all(is_open) {
            return (built, None);
        }
        let home = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
        let copy = home.path().join("sidekey");
        std::fs::copy(&built, &copy).expect("copied");
        (copy, Some(home))
    });
    path
}

/// Makes a directory and everything in it the ordinary user's.
pub fn give(path: &Path) {
    lchown(path, Some(ORDINARY), Some(ORDINARY)).expect("given");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("there") {
            give(&entry.expect("an entry").path());
        }
    }
}
