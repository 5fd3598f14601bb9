//! `[servers.NAME.children]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::duration::DurationText;
use crate::base::size::SizeText;

/// `[servers.NAME.children]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChildrenTable {
    /// How many child processes of this server run at a time. Those that are idle make room for others.
    #[schemars(range(min = 1, max = 400))]
    pub max: u16,
    /// How long a request waits for room before it is answered with 503.
    pub queue_timeout: DurationText,
    /// A child that nobody has used for so long is stopped.
    pub idle_stop: DurationText,
    /// How long a child may take from its start to its first answer.
    pub start_timeout: DurationText,
    /// How long a child that is asked to end may take before it is killed.
    pub stop_grace: DurationText,
    /// How much memory each process of a child may have for its own data.
    pub memory: SizeText,
    /// A process of a child that has used so much processor time is killed.
    pub cpu_time: DurationText,
    /// How many processes and threads a child may have at a time; not for `isolation = false`.
    #[schemars(range(min = 1, max = 65536))]
    pub processes: u32,
    /// How large one message may be, in either direction.
    pub largest_message: SizeText,
    /// Reach no hosts but those of providers and those in `egress.tunnel_hosts`; without this, others are tunnelled unseen.
    pub strict: bool,
    /// Whether children are kept from Sidekey's secrets and from each other. Where the system does not allow it, Sidekey does not
    /// start; `false` is for programs that are trusted as much as Sidekey is.
    pub isolation: bool,
}

impl Default for ChildrenTable {
    fn default() -> Self {
        let seconds = |seconds| DurationText(Duration::from_secs(seconds));
        Self {
            max: 20,
            queue_timeout: seconds(10),
            idle_stop: seconds(600),
            start_timeout: seconds(60),
            stop_grace: seconds(5),
            memory: SizeText::mebibytes(1024),
            cpu_time: seconds(3600),
            processes: 256,
            largest_message: SizeText::mebibytes(16),
            strict: false,
            isolation: true,
        }
    }
}
