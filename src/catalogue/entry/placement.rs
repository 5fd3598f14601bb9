//! Where else than in its header an API takes a token, and where it takes the tenant besides the path.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// One further place in which an API takes a token: exactly one key of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlaceEntry {
    /// A request header whose whole value is the token.
    pub header: Option<String>,
    /// One half of `Authorization: Basic`; the other half goes out as the caller wrote it.
    pub basic: Option<BasicHalf>,
    /// A query parameter.
    pub query: Option<String>,
    /// A field of an `application/x-www-form-urlencoded` body.
    pub form: Option<String>,
    /// A text in a JSON body, as JSON pointer.
    pub json: Option<String>,
    /// A path segment in which `{token}` stands for the token, such as `bot{token}`.
    pub path: Option<String>,
}

/// A half of `user:password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BasicHalf {
    /// What stands before the colon.
    User,
    /// What stands after it.
    Password,
}

/// Captured values that callers name besides the path: the name there to the name of the captured value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fill {
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// Request headers.
    pub header: BTreeMap<String, String>,
}
