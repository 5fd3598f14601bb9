//! Where a secret is: `env:NAME` or `file:PATH`, never the secret itself.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::base::secret::Secret;
use crate::base::sources::Sources;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file; a relative path starts at the configuration file's directory.
    File(PathBuf),
}

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("expected \"env:NAME\" or \"file:PATH\"".to_owned()),
        }
    }
}

impl SecretRef {
    /// The secret, without the line break at its end. The error says what to do.
    pub fn read(
        &self,
        home: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
        sources: &Sources,
    ) -> Result<Secret, String> {
        let text = match self {
            Self::Env(name) => {
                environment(name).ok_or_else(|| format!("the environment variable {name} is not set"))?
            }
            Self::File(path) => {
                let path = home.join(path);
                sources.read_secret(&path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::PermissionDenied => error.to_string(),
                    _ => format!("cannot read {}: {error}", path.display()),
                })?
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(Secret::new(text)) }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-secret", "pattern": "^(env|file):.+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files;

    #[test]
    fn reads_variables_and_files() {
        let home = tempfile::tempdir().expect("a directory");
        files::create_private(&home.path().join("key"), b"from file\n").expect("written");
        files::create_private(&home.path().join("empty"), b"\n").expect("written");
        let environment = |name: &str| (name == "KEY").then(|| "from env".to_owned());
        let read = |text: &str| {
            let reference: SecretRef = text.parse()?;
            reference.read(home.path(), &environment, &Sources::default()).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read("env:KEY").as_deref(), Ok("from env"));
        assert_eq!(read("file:key").as_deref(), Ok("from file"));
        assert_eq!(read("env:NONE"), Err("the environment variable NONE is not set".to_owned()));
        assert_eq!(read("file:empty"), Err("is empty".to_owned()));
        assert!(read("file:none").expect_err("missing").starts_with("cannot read "));
        assert!(read("the secret itself").is_err());
    }
}
