//! The names that appear in configuration, on command lines and in log lines.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

macro_rules! name {
    ($name:ident, $what:literal, $expected:literal, $accepts:expr) => {
        #[doc = $what]
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What it looks like, for messages.
            pub const EXPECTED: &'static str = $expected;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) { Ok(Self(text.into())) } else { Err(Self::EXPECTED.to_owned()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    Subject,
    "The person or organization that connections belong to.",
    "1 to 128 of the characters A-Z a-z 0-9 . _ @ + : - and the first of them a letter or digit",
    |text| {
        text.len() <= 128
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+:-".contains(&byte))
    }
);

name!(
    ProviderName,
    "The name of a provider: the key of its table in the configuration, and a segment of its redirect URI.",
    "1 to 40 of the characters a-z 0-9 - beginning with a letter",
    is_key
);

name!(
    ServerName,
    "The name of an MCP server: the key of its table in the configuration.",
    "1 to 40 of the characters a-z 0-9 - beginning with a letter",
    is_key
);

name!(
    Label,
    "Tells several connections of one subject at one provider apart.",
    "1 to 40 of the characters A-Z a-z 0-9 . _ -",
    |text| {
        (1..=40).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    }
);

name!(
    TokenName,
    "Which of several access tokens of one grant, as the provider's entry calls it.",
    "1 to 40 of the characters a-z 0-9 - beginning with a letter",
    is_key
);

/// What the names of tables look like.
fn is_key(text: &str) -> bool {
    text.len() <= 40
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl Default for Label {
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert!("org-42".parse::<Subject>().is_ok() && "a@b.example".parse::<Subject>().is_ok());
        for bad in ["", "-a", "a b", "a/b", "ä", "a\n", &"a".repeat(129)] {
            assert_eq!(bad.parse::<Subject>(), Err(Subject::EXPECTED.to_owned()), "{bad:?}");
        }
        assert!("github-oauth-app".parse::<ProviderName>().is_ok());
        for bad in ["", "GitHub", "a_b", "1a", "~a", ".well-known"] {
            assert!(bad.parse::<ProviderName>().is_err(), "{bad:?}");
        }
        assert!("".parse::<Label>().is_err());
    }
}
