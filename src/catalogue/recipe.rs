//! Recipes: which variables a well-known MCP server reads, and what `sidekey run` puts there. `docs/recipes.md` explains
//! the format with examples.
//!
//! The bundled files are `config/recipes/*.toml`; an operator's own directory may hold further ones and replacements.
//! Nothing about a particular server stands in Rust.

mod builtin;
mod load;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use load::Recipes;

/// How one published server is run.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What people call the server.
    pub display_name: String,
    /// Where it is published.
    pub registry: Registry,
    /// Its name there.
    pub package: String,
    /// The version, or for `git` the revision, that this was written for.
    pub version: String,
    /// The day on which that version was looked at, as YYYY-MM-DD.
    pub checked_on: String,
    /// Whether `make recipes` runs it, with this version, against the provider's own API shapes.
    pub tested: bool,
    /// Where the facts come from.
    pub documentation: Option<String>,
    /// What else an operator should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Provider entries, one of which must be configured; the handle reaches that one and no other.
    #[schemars(length(min = 1))]
    pub providers: Vec<String>,
    /// What is started where the caller names no command. It is seen by everybody on the machine, so no `{handle}` here.
    #[serde(default)]
    pub command: Vec<String>,
    /// The variables that are set, and to what.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Files that are written for the server, by name; `{file.NAME}` is where, and `{files}` the directory of all.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Variables that the caller must set, with what they are.
    #[serde(default)]
    pub ask: BTreeMap<String, String>,
}

/// Where a server is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// npmjs.com
    Npm,
    /// pypi.org
    Pypi,
    /// The Go module proxy.
    Go,
    /// A repository that is built from source.
    Git,
    /// A container image.
    Image,
}

/// What stands for the `{name}`s of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The handle.
    Handle,
    /// The URL of the egress listener, such as `http://127.0.0.1:8701`.
    Egress,
    /// The name of the provider's table in the configuration.
    Provider,
    /// The provider's environment, such as `sandbox`.
    Environment,
    /// A value that was captured when the subject connected.
    Captured(String),
    /// A value of the provider's `inputs`.
    Input(String),
    /// Where a file of the recipe is.
    File(String),
    /// The directory that the recipe's files are in.
    Files,
}

impl Placeholder {
    /// What a recipe may say.
    pub const EXPECTED: &str =
        "{handle}, {egress}, {provider}, {environment}, {captured.NAME}, {input.NAME}, {file.NAME} or {files}";

    fn parse(name: &str) -> Option<Self> {
        let part = |kind: &str| name.strip_prefix(kind)?.strip_prefix('.').map(str::to_owned);
        match name {
            "handle" => Some(Self::Handle),
            "egress" => Some(Self::Egress),
            "provider" => Some(Self::Provider),
            "environment" => Some(Self::Environment),
            "files" => Some(Self::Files),
            _ => part("captured")
                .map(Self::Captured)
                .or_else(|| part("input").map(Self::Input))
                .or_else(|| part("file").map(Self::File)),
        }
    }
}

/// Replaces the placeholders of a text. Braces around anything else than a plain name stand for themselves, so that a file
/// may be JSON. The first error ends it: what `value_of` says, or that there is no such placeholder.
pub fn fill(text: &str, mut value_of: impl FnMut(Placeholder) -> Result<String, String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        match after.find('}').filter(|close| is_name(&after[..*close])) {
            Some(close) => {
                let name = &after[..close];
                let placeholder = Placeholder::parse(name)
                    .ok_or_else(|| format!("{{{name}}} stands for nothing; expected {}", Placeholder::EXPECTED))?;
                filled.push_str(&value_of(placeholder)?);
                rest = &after[close + 1..];
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_and_other_braces_stay() {
        let value_of = |placeholder| match placeholder {
            Placeholder::Handle => Ok("H".to_owned()),
            Placeholder::Captured(name) => Ok(format!("<{name}>")),
            Placeholder::Files => Ok("/d".to_owned()),
            _ => Err("no".to_owned()),
        };
        assert_eq!(fill("xoxb-{handle}", value_of).as_deref(), Ok("xoxb-H"));
        assert_eq!(fill("{\"a\": {\"b\": \"{handle}\"}}", value_of).as_deref(), Ok("{\"a\": {\"b\": \"H\"}}"));
        assert_eq!(fill("{captured.realm_id}/{}", value_of).as_deref(), Ok("<realm_id>/{}"));
        assert_eq!(fill("{files}/users.json", value_of).as_deref(), Ok("/d/users.json"));
        assert_eq!(fill("{egress}", value_of), Err("no".to_owned()));
        assert!(fill("{handel}", value_of).expect_err("unknown").starts_with("{handel} stands for nothing; expected"));
    }
}
