//! Waits for a program and passes signals on to it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getsid};

/// Passed on as they come.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// What the kernel says of a signal that it sent by itself, such as for a key of the terminal.
const FROM_KERNEL: i32 = 0x80;

/// The signals of this process, held back and read one by one.
pub struct Signals(SignalFd);

impl Signals {
    /// Holds them back. To be called while there is one thread; those that it starts hold them back as well, programs do not.
    pub fn hold() -> Result<Self, Errno> {
        let mut set: SigSet = PASSED_ON.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// Waits for the program to end, and passes signals on meanwhile. The exit code is 128 and the signal's number if one
    /// ended it. With `adopts`, processes that it leaves behind are waited for as well.
    pub fn supervise(&self, mut child: Child, adopts: bool) -> Result<u8, Errno> {
        let pid = Pid::from_raw(child.id().cast_signed());
        loop {
            // It may have ended before its signal could be read.
            if let Some(code) = if adopts { reap(pid)? } else { child.try_wait().map_err(errno)?.map(code) } {
                return Ok(code);
            }
            let Some(info) = (match self.0.read_signal() {
                Err(Errno::EINTR) => continue,
                read => read?,
            }) else {
                continue;
            };
            let Some(signal) = PASSED_ON.into_iter().find(|known| *known as u32 == info.ssi_signo) else { continue };
            let is_key = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP | Signal::SIGCONT);
            // The terminal sends those to all of its foreground processes, so the program has it already, unless it was taken from
            // the terminal.
            let is_on_terminal = getsid(Some(pid)) == getsid(None);
            if !(is_key && info.ssi_code == FROM_KERNEL && is_on_terminal) {
                let is_ignored = signal == Signal::SIGTSTP && !is_on_terminal;
                let _ = kill(pid, if is_ignored { Signal::SIGSTOP } else { signal });
            }
            if signal == Signal::SIGTSTP {
                let _ = kill(Pid::this(), Signal::SIGSTOP);
            }
        }
    }
}

/// Waits for everything that has ended. The exit code if `child` is among it.
fn reap(child: Pid) -> Result<Option<u8>, Errno> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => found = Some(code.to_le_bytes()[0]),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                found = Some(128 + (signal as i32).to_le_bytes()[0])
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(found),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    code.to_le_bytes()[0]
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
