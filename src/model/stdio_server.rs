//! An MCP server that speaks stdio: a child process of ours for each of its users.

use std::collections::BTreeMap;
use std::time::Duration;

/// An MCP server that speaks stdio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdioServer {
    /// The program and its arguments; empty where the recipe says it.
    pub command: Vec<String>,
    /// The recipe that says what the program reads.
    pub recipe: Option<String>,
    /// Variables that every child gets, besides those that the recipe and Sidekey set.
    pub environment: BTreeMap<String, String>,
    /// How many bytes one message may have, in either direction.
    pub largest_message: usize,
    /// What its children may do and use.
    pub children: ChildSettings,
}

/// What the children of a server may do and use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSettings {
    /// How many run at a time.
    pub max: usize,
    /// How long a request waits for room.
    pub queue_timeout: Duration,
    /// One that nobody has used for so long is stopped.
    pub idle_stop: Duration,
    /// How long one may take from its start to its first answer.
    pub start_timeout: Duration,
    /// How long one that is asked to end may take.
    pub stop_grace: Duration,
    /// What each process may use.
    pub limits: ProcessLimits,
    /// Whether it reaches no hosts but those of providers and those that are listed.
    pub strict: bool,
    /// Whether it is kept from Sidekey's secrets and from others.
    pub isolation: bool,
}

/// What each process of a child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of its own data.
    pub memory: u64,
    /// Processor time.
    pub cpu_time: Duration,
    /// Processes and threads of the child, all together.
    pub processes: u32,
}
