//! Host names: which ones we are about, and what a name constraint makes of them.
//!
//! A pattern is a host name, or `*.suffix` for every host below a suffix. A certificate's name constraint cannot say so
//! much: it permits a name together with all names below it (RFC 5280 section 4.2.1.10). What is signed is decided by
//! patterns; the constraint is the fence around it that clients check.

use std::collections::BTreeSet;

/// How a host is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It is named.
    Named,
    /// It is below a suffix: one of any number.
    BelowSuffix,
}

/// The host in lower case, if it is a plain host name: letters, digits and hyphens, and no address.
pub fn plain(host: &str) -> Option<String> {
    // An all-numeric last label makes it an address to some.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_address = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = host.len() <= 253 && !is_address && host.split('.').all(is_label);
    is_plain.then(|| host.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(is_plain) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether a pattern is one that certificates can be made for.
pub fn is_pattern(pattern: &str) -> bool {
    plain(base(pattern)).is_some_and(|name| name == base(pattern))
}

/// What is permitted for a pattern, together with all names below it.
pub fn base(pattern: &str) -> &str {
    pattern.strip_prefix("*.").unwrap_or(pattern)
}

/// Whether the patterns list a plain host name, and how.
pub fn listed(patterns: &BTreeSet<String>, host: &str) -> Option<Listed> {
    if patterns.contains(host) {
        return Some(Listed::Named);
    }
    let mut above = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
    above.any(|pattern| patterns.contains(&pattern)).then_some(Listed::BelowSuffix)
}

/// Whether a certificate that is constrained to `permitted` may stand for all that `pattern` stands for.
pub fn permits(permitted: &BTreeSet<String>, pattern: &str) -> bool {
    let name = base(pattern);
    permitted
        .iter()
        .map(|permitted| base(permitted))
        .any(|base| name.strip_suffix(base).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_plain_names_are_names() {
        assert_eq!(plain("API.Example.com").as_deref(), Some("api.example.com"));
        assert_eq!(plain(&format!("{}.example", "a".repeat(63))).map(|name| name.len()), Some(71));
        let long = format!("{}example", "a.".repeat(200));
        let odd = [
            "",
            ".",
            "*",
            "*.example.com",
            "a.example.com.",
            ".example.com",
            "a..b",
            "127.0.0.1",
            "1.2.3",
            "[::1]",
            "::1",
            "a b",
            "a\0b",
            "a/b",
            "a:443",
            "-a.example",
            "a-.example",
            "ä.example",
            "😀.example",
            "a_b.example",
            "a@b",
            "a%00.example",
            "a,b",
            &long,
            &"a".repeat(64),
            &"a".repeat(65_536),
        ];
        for name in odd {
            assert_eq!(plain(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_suffix_lists_what_is_below_it_and_not_itself() {
        let patterns = patterns(&["api.example.com", "*.shop.example"]);
        assert_eq!(listed(&patterns, "api.example.com"), Some(Listed::Named));
        assert_eq!(listed(&patterns, "a.shop.example"), Some(Listed::BelowSuffix));
        assert_eq!(listed(&patterns, "b.a.shop.example"), Some(Listed::BelowSuffix));
        for other in ["shop.example", "ashop.example", "x.api.example.com", "example.com", "com", "shop.example.evil"] {
            assert_eq!(listed(&patterns, other), None, "{other}");
        }
    }

    #[test]
    fn a_constraint_permits_a_name_and_all_below_it() {
        let permitted = patterns(&["github.example", "*.shop.example"]);
        for name in ["github.example", "api.github.example", "*.github.example", "*.shop.example", "a.shop.example"] {
            assert!(permits(&permitted, name), "{name}");
        }
        for name in ["example", "notgithub.example", "*.example", "github.example.evil"] {
            assert!(!permits(&permitted, name), "{name}");
        }
    }
}
