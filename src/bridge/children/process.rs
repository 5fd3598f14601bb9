//! One process of a child, from its start to the end of everything that it has started.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::base::clock::Clock;
use crate::launch::directory::RunDirectory;
use crate::launch::own_user::OwnUser;

/// The pipes to a process.
pub struct Pipes {
    /// What it reads.
    pub stdin: pipe::Sender,
    /// What it says.
    pub stdout: pipe::Receiver,
    /// What it complains of.
    pub stderr: pipe::Receiver,
}

/// What belongs to a process and goes with it.
pub struct Belongings {
    /// Its files.
    pub directory: RunDirectory,
    /// Its user, where it has one of its own.
    pub user: Option<OwnUser>,
    /// The Sidekey by which that user's processes are ended.
    pub sidekey: PathBuf,
}

/// A process that was started.
pub struct Process {
    child: Child,
    ended: AsyncFd<OwnedFd>,
    belongings: Option<Belongings>,
}

impl Process {
    /// Takes over what the spawner has started.
    pub fn new(mut child: Child, belongings: Belongings) -> io::Result<(Self, Pipes)> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let stdin = pipe::Sender::from_owned_fd(child.stdin.take().ok_or_else(gone)?.into())?;
        let stdout = pipe::Receiver::from_owned_fd(child.stdout.take().ok_or_else(gone)?.into())?;
        let stderr = pipe::Receiver::from_owned_fd(child.stderr.take().ok_or_else(gone)?.into())?;
        let ended = pidfd_open(pid(&child), PidfdFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "the other way needs unsafe code; an owned descriptor does what either asks for")]
        let ended = AsyncFd::new(ended)?;
        let process = Self { child, ended, belongings: Some(belongings) };
        Ok((process, Pipes { stdin, stdout, stderr }))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Completes once it has ended.
    pub async fn ended(&self) {
        // The descriptor of a process becomes readable when it ends, and stays so.
        let _ = self.ended.readable().await;
    }

    /// Has it end: its input is closed already, so it may be about to. Half of `grace` later it is told to, after the other half
    /// it is killed, with all that it has started.
    pub async fn end(mut self, clock: &dyn Clock, grace: Duration) -> io::Result<ExitStatus> {
        if !self.ends_within(clock, grace / 2).await {
            let _ = kill_process_group(pid(&self.child), Signal::TERM);
            if !self.ends_within(clock, grace / 2).await {
                let _ = kill_process_group(pid(&self.child), Signal::KILL);
                self.ended().await;
            }
        }
        // As long as nobody has asked how it ended, no other process group can have its number.
        let _ = kill_process_group(pid(&self.child), Signal::KILL);
        let status = self.child.wait();
        let belongings = self.belongings.take();
        let _ = tokio::task::spawn_blocking(move || belongings.into_iter().for_each(Belongings::clear_up)).await;
        status
    }

    async fn ends_within(&self, clock: &dyn Clock, time: Duration) -> bool {
        tokio::select! {
            () = self.ended() => true,
            () = clock.sleep(time) => false,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only one that was not waited for: the runtime is going down.
        if let Some(belongings) = self.belongings.take() {
            let _ = kill_process_group(pid(&self.child), Signal::KILL);
            let _ = self.child.wait();
            belongings.clear_up();
        }
    }
}

impl Belongings {
    fn clear_up(self) {
        if let Some(user) = &self.user {
            user.sweep_with(&self.sidekey);
        }
        // In this order: nobody else gets the user while what belongs to it is still there.
        drop(self.directory);
        drop(self.user);
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// How a process ended, in words.
pub fn ending(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code @ 129..=159), _) => format!("it was ended by signal {}", code - 128),
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        },
        Err(_) => "it ended".to_owned(),
    }
}

type Job = (Command, oneshot::Sender<io::Result<Child>>);

/// Starts processes on a thread of its own: they do not outlive the thread that has started them, and those of the runtime come
/// and go.
pub struct Spawner(mpsc::Sender<Job>);

impl Spawner {
    /// Begins; the thread ends when this is dropped.
    pub fn begin() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("sidekey-children".to_owned()).spawn(move || {
            while let Ok((mut command, answer)) = jobs.recv() {
                if let Err(Ok(mut unwanted)) = answer.send(command.spawn()) {
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts a process in a group of its own, with three pipes.
    pub async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes has ended");
        self.0.send((command, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
