//! How a grant lives: lifetimes, rotation, and what errors mean for it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::duration::DurationText;

/// How long things live. What a reply says goes first; this is for where it says nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    /// An access token; absent where it does not expire by time, or nobody knows.
    pub access: Option<DurationText>,
    /// A refresh token that is not used.
    pub refresh_idle: Option<DurationText>,
    /// A grant, however often it is refreshed.
    pub refresh_absolute: Option<DurationText>,
    /// An authorization code.
    pub code: Option<DurationText>,
}

/// What happens to the refresh token when it is used.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The rule.
    pub model: RotationModel,
    /// For `interval`: how long a value stays the same.
    pub interval: Option<DurationText>,
    /// For `leeway`: how long a used token may be used again.
    pub grace: Option<DurationText>,
    /// For `until_successor`: how long the old one lives at most.
    pub grace_cap: Option<DurationText>,
    /// For `optional`: the rule once an administrator has switched rotation on.
    pub when_on: Option<RotationModel>,
    /// What the provider does about a token that is used again.
    pub reuse: Option<Reuse>,
    /// Whether a refresh ends the access tokens issued before.
    #[serde(default)]
    pub kills_access: bool,
    /// Whether another authorization of the same user and client ends this one.
    #[serde(default)]
    pub one_grant: bool,
    /// Whether one refresh token gets access tokens for several resources.
    #[serde(default)]
    pub multi_resource: bool,
}

/// The rule of rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationModel {
    /// There is no refresh token.
    None,
    /// It never changes.
    Static,
    /// It changes at most once in `interval`.
    Interval,
    /// Each use returns a new one and kills the old one at once.
    SingleUse,
    /// Each use returns a new one; the old one may be used again for `grace`.
    Leeway,
    /// The old one lives until its successor is used, at most for `grace_cap`.
    UntilSuccessor,
    /// Each use returns a new one; old ones live until their own expiry.
    Overlap,
    /// An administrator chooses between `static` and `when_on`.
    Optional,
}

/// What a provider does about a refresh token that is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Refuses it.
    Error,
    /// Ends the whole grant.
    RevokeFamily,
    /// Ends the whole grant once the grace is over.
    RevokeFamilyAfterGrace,
    /// Nobody knows.
    Unknown,
}

/// Whether a refresh token may be sent again when the reply to it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// At any time: nothing can be burnt by asking twice.
    Harmless,
    /// Until then, by which time it must have arrived. Later it is as if it never could.
    HarmlessUntil(Timestamp),
    /// It may end the whole grant, or be the only way to find out that it lives: it is done once, when there is nothing left to lose.
    LastResort,
}

/// The most that is taken off a grace, so that a repetition arrives within it; of a short one, a quarter.
const GRACE_MARGIN: Duration = Duration::from_secs(30);

impl Rotation {
    /// What holds for a refresh token whose value came at `token_since` and that was first sent, without a reply, at
    /// `sent_at`. The provider acted after it was sent, so that its own clock starts no earlier than ours. A provider of whom we
    /// are not sure counts as one that kills the old token at once.
    pub fn repetition(&self, sent_at: Timestamp, token_since: Option<Timestamp>) -> Repetition {
        let within = |grace: Option<DurationText>, otherwise| match grace {
            Some(DurationText(grace)) if !grace.is_zero() => {
                Repetition::HarmlessUntil(sent_at.plus(grace - GRACE_MARGIN.min(grace / 4)))
            }
            _ => otherwise,
        };
        match self.rule() {
            RotationModel::None | RotationModel::Static | RotationModel::Overlap => Repetition::Harmless,
            RotationModel::UntilSuccessor => within(self.grace_cap, Repetition::Harmless),
            RotationModel::Leeway => within(self.grace, Repetition::LastResort),
            RotationModel::Interval if self.keeps_value(sent_at, token_since) => Repetition::Harmless,
            RotationModel::Interval => within(self.grace, Repetition::LastResort),
            RotationModel::SingleUse | RotationModel::Optional => Repetition::LastResort,
        }
    }

    /// Whether a request at `sent_at` gets the very same refresh token back: its value is younger than the interval.
    fn keeps_value(&self, sent_at: Timestamp, token_since: Option<Timestamp>) -> bool {
        let Some((DurationText(interval), since)) = self.interval.zip(token_since) else { return false };
        if since > sent_at {
            return false; // the clock was set back: nobody knows how long ago that was
        }
        // A provider that counts from a moment before ours, or whose clock is not quite ours, is given a tenth.
        sent_at.since(since) < interval.mul_f64(0.9)
    }

    /// Whether the refresh token before the current one may still be alive when the current one is dead.
    pub fn predecessor_may_live(&self) -> bool {
        !matches!(self.rule(), RotationModel::SingleUse | RotationModel::Optional)
    }

    /// Whether several tokens of one grant can be refreshed side by side, each with a refresh token of its own lineage.
    pub fn branches(&self) -> bool {
        matches!(self.rule(), RotationModel::Static | RotationModel::Overlap)
    }

    /// The rule, with the strictest one in place of an administrator's choice that we do not know.
    fn rule(&self) -> RotationModel {
        match self.model {
            RotationModel::Optional => self.when_on.unwrap_or(RotationModel::SingleUse),
            model => model,
        }
    }
}

/// What the errors of the token endpoint mean. `invalid_grant` is permanent and `invalid_client` the operator's unless a
/// rule says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// The grant is dead.
    #[serde(default)]
    pub permanent: Vec<String>,
    /// Ask again later.
    #[serde(default)]
    pub transient: Vec<String>,
    /// The operator must mend the registration; grants are kept.
    #[serde(default)]
    pub configuration: Vec<String>,
    /// The user must do something at the provider.
    #[serde(default)]
    pub user_action: Vec<String>,
    /// What the authorization endpoint says when an administrator must agree before the user can: values of `error`, or parts of
    /// `error_description`.
    #[serde(default)]
    pub admin_consent: Vec<String>,
    /// Exceptions, looked at first.
    #[serde(default)]
    pub rules: Vec<ErrorRule>,
    /// Further places of an error code in the reply, as JSON pointers.
    #[serde(default)]
    pub more_codes: Vec<String>,
    /// Places of details to log (never secrets), as JSON pointers.
    #[serde(default)]
    pub details: Vec<String>,
}

/// An exception: all conditions that are given must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// The error code.
    pub error: Option<String>,
    /// A part of the description, in any case.
    pub description_contains: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// What it means.
    pub class: ErrorClass,
}

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Nobody: the grant is dead and the user must connect again.
    Permanent,
    /// Nobody: it passes.
    Transient,
    /// The operator.
    Configuration,
    /// The user, at the provider.
    UserAction,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn rotation(toml: &str) -> Rotation {
        toml::from_str(toml).expect("a rotation")
    }

    fn until(seconds: u64) -> Repetition {
        Repetition::HarmlessUntil(SENT.plus(Duration::from_secs(seconds)))
    }

    #[test]
    fn what_may_be_repeated_follows_from_the_model() {
        let of = |toml| rotation(toml).repetition(SENT, None);
        assert_eq!(of("model = 'static'"), Repetition::Harmless);
        assert_eq!(of("model = 'overlap'"), Repetition::Harmless);
        assert_eq!(of("model = 'until_successor'"), Repetition::Harmless);
        assert_eq!(of("model = 'until_successor'\ngrace_cap = '1d'"), until(86_370));
        assert_eq!(of("model = 'leeway'\ngrace = '10m'"), until(570));
        assert_eq!(
            of("model = 'leeway'\ngrace = '30s'"),
            Repetition::HarmlessUntil(SENT.plus(Duration::from_millis(22_500)))
        );
        assert_eq!(of("model = 'leeway'\ngrace = '0s'"), Repetition::LastResort);
        assert_eq!(of("model = 'leeway'"), Repetition::LastResort);
        assert_eq!(of("model = 'single_use'"), Repetition::LastResort);
        assert_eq!(of("model = 'optional'"), Repetition::LastResort);
        assert_eq!(of("model = 'optional'\nwhen_on = 'overlap'"), Repetition::Harmless);
    }

    #[test]
    fn a_value_that_cannot_have_changed_may_be_sent_again() {
        let daily = rotation("model = 'interval'\ninterval = '1d'");
        let since = |hours: u64| Some(SENT.minus(Duration::from_secs(hours * 3600)));
        assert_eq!(daily.repetition(SENT, since(1)), Repetition::Harmless);
        assert_eq!(daily.repetition(SENT, since(23)), Repetition::LastResort, "too near to the end");
        assert_eq!(daily.repetition(SENT, None), Repetition::LastResort, "nobody knows since when");
        assert_eq!(rotation("model = 'interval'").repetition(SENT, since(0)), Repetition::LastResort);
    }

    #[test]
    fn a_predecessor_is_tried_only_where_it_may_live() {
        assert!(rotation("model = 'until_successor'").predecessor_may_live());
        assert!(!rotation("model = 'single_use'").predecessor_may_live());
        assert!(!rotation("model = 'optional'").predecessor_may_live());
        assert!(rotation("model = 'overlap'").branches() && !rotation("model = 'leeway'").branches());
    }
}
