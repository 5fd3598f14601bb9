//! What a child process of the server is held to besides being kept apart: how much it may use, where it may write, and that
//! it inherits nothing but its three streams.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError,
};
use nix::unistd::close;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::sockets;

/// What a program is held to. By default to nothing.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that each process may have for its own data.
    #[arg(long)]
    pub memory: Option<u64>,
    /// Seconds of processor time of each process.
    #[arg(long)]
    pub cpu_time: Option<u64>,
    /// Processes and threads of the user, in its namespace.
    #[arg(long)]
    pub processes: Option<u64>,
    /// The only directory that may be written to.
    #[arg(long)]
    pub write_in: Option<PathBuf>,
    /// Whether it listens on TCP ports of the kernel's choosing alone.
    #[arg(long)]
    pub ephemeral_ports_alone: bool,
    /// Whether it gets no descriptor but its three streams.
    #[arg(long)]
    pub streams_alone: bool,
}

impl Bounds {
    /// Hands them to a stage further on.
    pub(super) fn add_to(&self, command: &mut Command) {
        let numbers = [("--memory", self.memory), ("--cpu-time", self.cpu_time), ("--processes", self.processes)];
        for (option, number) in numbers {
            if let Some(number) = number {
                command.arg(option).arg(number.to_string());
            }
        }
        if let Some(directory) = &self.write_in {
            command.arg("--write-in").arg(directory);
        }
        if self.ephemeral_ports_alone {
            command.arg("--ephemeral-ports-alone");
        }
        if self.streams_alone {
            command.arg("--streams-alone");
        }
    }

    /// Keeps to them from here on, whatever is started.
    pub(super) fn keep(&self) -> Result<(), String> {
        let failed = |what: &str, error: &dyn Display| format!("cannot limit {what}: {error}");
        let limits = [
            ("memory", Resource::Data, self.memory),
            ("processor time", Resource::Cpu, self.cpu_time),
            ("processes", Resource::Nproc, self.processes),
        ];
        for (what, resource, number) in limits {
            if let Some(number) = number {
                let limit = Rlimit { current: Some(number), maximum: Some(number) };
                setrlimit(resource, limit).map_err(|error| failed(what, &error))?;
            }
        }
        if let Some(directory) = &self.write_in {
            write_only_in(directory).map_err(|error| failed("where it writes", &error))?;
        }
        if self.ephemeral_ports_alone {
            sockets::bind_to_no_port_of_others().map_err(|error| failed("where it listens", &error))?;
        }
        if self.streams_alone {
            close_the_rest().map_err(|error| failed("what it inherits", &error))?;
        }
        Ok(())
    }
}

/// Kernels before 5.13 cannot; there only the modes of files keep it.
fn write_only_in(directory: &Path) -> Result<(), String> {
    let opened = PathFd::new(directory).map_err(|error| error.to_string())?;
    confine_writes(opened).map_err(|error| error.to_string())
}

fn confine_writes(directory: PathFd) -> Result<(), RulesetError> {
    // What every program expects to write to.
    const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let writes = AccessFs::from_write(ABI::V3);
    let to_device: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate;
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(writes)?.create()?;
    let mut ruleset = ruleset.add_rule(PathBeneath::new(directory, writes))?;
    for device in DEVICES.iter().filter_map(|device| PathFd::new(device).ok()) {
        ruleset = ruleset.add_rule(PathBeneath::new(device, to_device))?;
    }
    ruleset.restrict_self().map(drop)
}

fn close_the_rest() -> std::io::Result<()> {
    let numbers = std::fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    let numbers: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // That of the directory itself is closed already.
        let _ = close(number);
    }
    Ok(())
}
