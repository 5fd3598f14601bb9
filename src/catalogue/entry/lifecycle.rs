//! How a grant lives: lifetimes, rotation, look-ups after connecting, and what errors mean for it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::duration::DurationText;
use crate::base::safe_url::SafeUrl;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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

impl Rotation {
    /// Whether the same refresh token may be sent again when the reply to it was lost: then nothing can be burnt by
    /// asking twice. A provider of whom we are not sure counts as one that kills the old token at once.
    pub fn repetition_is_harmless(&self) -> bool {
        match self.model {
            RotationModel::None | RotationModel::Static | RotationModel::Overlap | RotationModel::UntilSuccessor => {
                true
            }
            // The repetitions of one refresh take seven seconds and their time limits; a shorter grace would not do.
            RotationModel::Leeway => self.grace.is_some_and(|grace| grace.0.as_secs() >= 300),
            RotationModel::Interval | RotationModel::SingleUse | RotationModel::Optional => false,
        }
    }
}

/// A look-up to make once connected.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// Where to ask, with the access token as bearer.
    pub url: SafeUrl,
    /// The list in the reply, as JSON pointer; empty for the reply itself. Where it has several items the user chooses.
    #[serde(default)]
    pub items: String,
    /// What to show the user for each item, as JSON pointer into it.
    pub item_name: Option<String>,
    /// Values that belong to the connection: name to place in the item.
    pub capture: BTreeMap<String, String>,
    /// Whether to ask again after every renewed consent.
    #[serde(default)]
    pub repeat: bool,
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
