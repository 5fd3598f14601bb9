//! What a provider's tokens look like to programs that check that before they use one.

use schemars::JsonSchema;
use serde::Deserialize;

/// How handles look that stand in for the provider's tokens: exactly one key of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HandleLook {
    /// What they begin with.
    pub prefix: Option<String>,
    /// What they are shaped like.
    pub shape: Option<HandleShape>,
}

/// What a handle may be shaped like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandleShape {
    /// A JSON Web Token that has not expired.
    Jwt,
}
