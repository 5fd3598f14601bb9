//! The real program with its data on a file system of three megabytes, in a mount namespace of its own, so that it goes
//! when the test ends and no privileges are needed.

use std::process::Stdio;

use sidekey_simulator::{Counters, Options, Simulator};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::client::{Answer, http, send};
use crate::process::Program;
use crate::world::{Files, Setup};

/// The file system, and the program on it.
pub struct SmallDisk {
    pub program: Program,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// Runs the commands that it is sent. Killed with the namespace, and everything in it, when the test lets go of it.
const SHELL: &str = "mount -t tmpfs -o size=3m,nr_inodes=64,mode=700 none data &&
  while read -r command; do eval \"$command\"; echo \"$?\"; done";

impl SmallDisk {
    /// A file system with the program on it. `files` must place the admin socket elsewhere.
    pub async fn start(files: Files) -> Self {
        std::fs::create_dir(files.data()).expect("made");
        let mut shell = Command::new("unshare");
        shell.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SHELL]);
        shell.current_dir(files.home.path()).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("unshare (of util-linux) is installed");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut disk = Self { program: Program { child, files }, commands, answers };
        disk.serve().await;
        disk
    }

    /// Starts the program, and waits until it is ready.
    pub async fn serve(&mut self) {
        self.serve_under("").await;
    }

    /// The same under another program, whose command line this is.
    pub async fn serve_under(&mut self, tracer: &str) {
        let sidekey = env!("CARGO_BIN_EXE_sidekey");
        self.run(&format!("{tracer} {sidekey} serve --config sidekey.toml 2>>log & server=$!")).await;
        self.program.ready().await;
    }

    /// Ends the program with a signal; how it ended.
    pub async fn stop(&mut self, signal: &str) -> i32 {
        self.run(&format!("kill -{signal} $server; wait $server")).await
    }

    /// Leaves no room for another byte.
    pub async fn fill(&mut self) {
        assert_ne!(self.run("cat /dev/zero >>data/filler 2>/dev/null").await, 0, "it is full");
    }

    /// Leaves no room for another file.
    pub async fn fill_with_files(&mut self) {
        assert_ne!(self.run("(i=0; while : >data/empty$i; do i=$((i + 1)); done) 2>/dev/null; false").await, 0);
        assert_ne!(self.run("(: >data/another) 2>/dev/null").await, 0, "it is full");
    }

    pub async fn free(&mut self) {
        assert_eq!(self.run("rm data/filler").await, 0);
    }

    /// Runs a line of shell; its exit status.
    pub async fn run(&mut self, command: &str) -> i32 {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("the shell runs");
        let status = self.answers.next_line().await.expect("read").expect("unshare and mount are allowed");
        status.parse().expect("a number")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.program.files.home.path().join("log")).expect("there")
    }
}

pub async fn simulator(lifetime: f64) -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("github", |settings| settings.access_lifetime_s = lifetime);
    simulator
}

/// With the program on it, connected to nothing yet.
pub async fn small_disk(simulator: &Simulator) -> SmallDisk {
    let tables = "[admin]\nsocket = \"admin.sock\"\n[timeouts]\ntoken = \"3s\"\n".to_owned();
    let setup = Setup { tables, ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    // The strictest rule: what is lost there is in doubt.
    files.declare_rotation("quickbooks", "single_use");
    SmallDisk::start(files).await
}

pub fn counters(simulator: &Simulator) -> Counters {
    simulator.ledger().profile("github").counters.clone()
}

pub async fn get(program: &Program, handle: &str) -> Answer {
    send(http().get(address(program)).bearer_auth(handle)).await
}

pub fn address(program: &Program) -> String {
    format!("http://{}/github/user", program.files.egress)
}

pub async fn call(program: &Program, handle: &str) -> u16 {
    get(program, handle).await.status
}

pub async fn readiness(program: &Program) -> Answer {
    send(http().get(format!("http://{}/readyz", program.files.metrics))).await
}
