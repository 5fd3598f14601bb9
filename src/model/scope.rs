//! Scopes of our own tokens (RFC 6749 section 3.3), and which of them include others.

use std::collections::{BTreeMap, BTreeSet};

/// A set of scopes, in order.
pub type ScopeSet = BTreeSet<String>;

/// The scope that asks for a refresh token. Every client gets one, so it grants nothing.
pub const OFFLINE_ACCESS: &str = "offline_access";

/// What the operator says about one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeMeaning {
    /// What people are told about it.
    pub description: Option<String>,
    /// Scopes that it includes.
    pub includes: Vec<String>,
}

/// What is known about scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(pub BTreeMap<String, ScopeMeaning>);

impl Scopes {
    /// Whether `granted` covers `needed`, itself or through what a granted scope includes.
    pub fn covers(&self, granted: &ScopeSet, needed: &str) -> bool {
        let mut open: Vec<&str> = granted.iter().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(scope) = open.pop() {
            if scope == needed {
                return true;
            }
            if seen.insert(scope)
                && let Some(meaning) = self.0.get(scope)
            {
                open.extend(meaning.includes.iter().map(String::as_str));
            }
        }
        false
    }

    /// What people are told about a scope.
    pub fn description(&self, scope: &str) -> Option<&str> {
        self.0.get(scope)?.description.as_deref()
    }
}

/// Whether a text is one scope (RFC 6749 section 3.3).
pub fn is_scope(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !text.is_empty() && text.len() <= 128 && text.bytes().all(plain)
}

/// Scopes as they stand in a parameter.
pub fn parse(text: &str) -> Option<ScopeSet> {
    let scopes: Vec<&str> = text.split(' ').filter(|scope| !scope.is_empty()).collect();
    (scopes.len() <= 64 && scopes.iter().all(|scope| is_scope(scope)))
        .then(|| scopes.into_iter().map(str::to_owned).collect())
}

/// Scopes as they are written in a parameter.
pub fn write(scopes: &ScopeSet) -> String {
    scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_itself_and_what_it_includes() {
        let meaning = |includes: &[&str]| ScopeMeaning {
            description: None,
            includes: includes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let scopes = Scopes(BTreeMap::from([
            ("admin".to_owned(), meaning(&["write"])),
            ("write".to_owned(), meaning(&["read", "admin"])),
        ]));
        let granted = |text: &str| parse(text).expect("scopes");
        assert!(scopes.covers(&granted("admin"), "read") && scopes.covers(&granted("x read"), "read"));
        assert!(!scopes.covers(&granted("read"), "write") && !scopes.covers(&granted(""), "read"));
    }

    #[test]
    fn scopes_are_plain_words() {
        assert_eq!(parse("b  a a").map(|scopes| write(&scopes)).as_deref(), Some("a b"));
        for bad in ["a\"b", "a\\", "é", "a\nb", &"a".repeat(129)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
