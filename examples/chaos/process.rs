//! The process that is killed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sidekey::base::clock::{Clock, SystemClock};
use tokio::process::{Child, Command};

use crate::files::{Files, text};

/// How long a process may take to end when it is asked to: a refresh under way may have repetitions before it.
const END: Duration = Duration::from_secs(60);

/// A running `sidekey serve`; killed when dropped.
pub struct Sidekey {
    /// When it was started, in milliseconds since 1970.
    pub spawned_at_ms: u64,
    child: Child,
}

impl Sidekey {
    /// Starts it; it is not ready yet.
    pub fn start(program: &Path, files: &Files) -> Result<Self, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(files.log()).map_err(text)?;
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(files.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).env_remove("SIDEKEY_CONFIG");
        let spawned_at_ms = now_ms();
        Ok(Self { spawned_at_ms, child: command.spawn().map_err(text)? })
    }

    /// Kills it, and waits until it is gone. Returns the moment just before.
    pub async fn kill(mut self) -> Result<u64, String> {
        if let Some(status) = self.child.try_wait().map_err(text)? {
            return Err(format!("sidekey ended by itself: {status}"));
        }
        let killed_at_ms = now_ms();
        self.child.start_kill().map_err(text)?;
        self.child.wait().await.map_err(text)?;
        Ok(killed_at_ms)
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self) -> Result<(), String> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.ok_or("sidekey ended by itself")?, Signal::TERM).map_err(text)?;
        let status = tokio::time::timeout(END, self.child.wait()).await.map_err(|_| "sidekey does not end")?;
        let status = status.map_err(text)?;
        status.success().then_some(()).ok_or_else(|| format!("sidekey did not end well: {status}"))
    }
}

/// The present, in milliseconds since 1970, as the simulators count it.
pub fn now_ms() -> u64 {
    u64::try_from(SystemClock.now().as_millis()).unwrap_or_default()
}

/// Waits.
pub async fn pause(duration: Duration) {
    SystemClock.sleep(duration).await;
}

/// Asks again every few milliseconds until the answer is yes; no after `longest`.
pub async fn until(longest: Duration, mut asked: impl AsyncFnMut() -> bool) -> bool {
    let end = now_ms() + u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    loop {
        if asked().await {
            return true;
        }
        if now_ms() >= end {
            return false;
        }
        pause(Duration::from_millis(10)).await;
    }
}
