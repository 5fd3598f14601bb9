//! What is asked once a provider is connected: which sites, tenants or organizations the connection reaches.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::safe_url::SafeUrl;

/// A look-up to make once connected.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// Where to ask (GET), with the access token as bearer.
    pub url: SafeUrl,
    /// Further request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The list in the reply, as JSON pointer; empty for the reply itself. Where it has several items the user chooses. An
    /// object in its place is one item.
    #[serde(default)]
    pub items: String,
    /// Which items count: what stands at a JSON pointer into the item must be, or hold, one of these values.
    #[serde(default)]
    pub only: BTreeMap<String, Vec<String>>,
    /// What to show the user for each item, as JSON pointer into it.
    pub item_name: Option<String>,
    /// Values that belong to the connection: name to place in the item, as JSON pointer. An item without a value that a
    /// path, a header, an origin or `realm` names does not count.
    pub capture: BTreeMap<String, String>,
    /// What captured values must look like, by name; an item in which one does not does not count.
    #[serde(default)]
    #[schemars(extend("additionalProperties" = { "type": "string", "format": "sidekey-pattern" }))]
    pub patterns: BTreeMap<String, String>,
    /// Whether to ask again after every renewed consent; otherwise what the connection before had stays.
    #[serde(default = "yes")]
    pub repeat: bool,
}

/// How the company's name is asked for, for people to see: at the default API, with the connection's first token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompanyLookup {
    /// The path there (GET), below the API's `base_path`; `{name}` stands for a captured value.
    pub path: String,
    /// The name in the reply, as JSON pointer.
    pub name: String,
}

fn yes() -> bool {
    true
}
