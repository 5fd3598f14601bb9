//! The rules by which refresh tokens live and die: as the simulator follows them, and as a provider file declares them.

use clap::ValueEnum;
use sidekey_simulator::{Reuse, Rotation, Settings};

/// A rule of rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Model {
    /// One refresh token for ever.
    Static,
    /// A new one every few seconds; the old one is dead at once.
    Interval,
    /// A new one each time; the old one works ten minutes more.
    Leeway,
    /// A new one each time; the old one works until what came with the new one is used.
    UntilSuccessor,
    /// A new one each time; old ones go on working.
    Overlap,
    /// A new one each time; the old one is dead at once.
    SingleUse,
}

/// Seconds between two values of [`Model::Interval`].
const INTERVAL: u32 = 5;
/// Seconds that a value of [`Model::Leeway`] works on.
const GRACE: u32 = 600;

impl Model {
    /// Every rule.
    pub const ALL: [Model; 6] =
        [Model::Static, Model::Interval, Model::Leeway, Model::UntilSuccessor, Model::Overlap, Model::SingleUse];

    /// The word on the command line and in the result.
    pub fn name(self) -> &'static str {
        match self {
            Model::Static => "static",
            Model::Interval => "interval",
            Model::Leeway => "leeway",
            Model::UntilSuccessor => "until_successor",
            Model::Overlap => "overlap",
            Model::SingleUse => "single_use",
        }
    }

    /// What the provider is called.
    pub fn provider(self) -> String {
        self.name().replace('_', "-")
    }

    /// Whether a client that makes no mistake keeps every grant, whenever it dies and whichever reply is lost. With the
    /// other rules the only copy of a refresh token may be in a reply that never arrived.
    pub fn keeps_every_grant(self) -> bool {
        match self {
            Model::Static | Model::Leeway | Model::UntilSuccessor | Model::Overlap => true,
            Model::Interval | Model::SingleUse => false,
        }
    }

    /// Whether a refresh kills earlier access tokens: at one of those that keep every grant, and at one of the others.
    fn kills_access(self) -> bool {
        matches!(self, Model::UntilSuccessor | Model::SingleUse)
    }

    /// `[rotation]` of the provider file.
    pub fn entry(self) -> String {
        let more = match self {
            Model::Interval => format!("interval = \"{INTERVAL}s\"\n"),
            Model::Leeway => format!("grace = \"{GRACE}s\"\n"),
            _ => String::new(),
        };
        let (name, kills) = (self.name(), self.kills_access());
        format!("[rotation]\nmodel = \"{name}\"\nreuse = \"revoke_family\"\nkills_access = {kills}\n{more}")
    }

    /// The same for the simulator. Whoever sends a dead refresh token again loses the whole grant at every one of them.
    pub fn apply(self, settings: &mut Settings) {
        settings.rotation = match self {
            Model::Static => Rotation::Static,
            Model::Interval => Rotation::Interval,
            Model::Leeway => Rotation::Leeway,
            Model::UntilSuccessor => Rotation::UntilSuccessor,
            Model::Overlap => Rotation::Overlap,
            Model::SingleUse => Rotation::SingleUse,
        };
        settings.interval_s = f64::from(INTERVAL);
        settings.grace_s = if self == Model::Leeway { f64::from(GRACE) } else { 0.0 };
        settings.kills_access = self.kills_access();
        settings.reuse = Reuse::RevokeFamily;
        settings.revoke_access_on_reuse = true;
    }
}
