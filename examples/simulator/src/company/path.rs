//! Patterns of paths.

/// How a path and a pattern go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// They do not.
    No,
    /// They would, with another value in the place of a name.
    OtherValue,
    Yes,
}

/// Compares segment by segment. `*` stands for any segment, `{name}` for one that `is` allows; a pattern that ends with a slash fits all
/// below it.
pub(crate) fn fits(pattern: &str, path: &str, is: impl Fn(&str, &str) -> bool) -> Fit {
    let mut fit = Fit::Yes;
    let (mut wanted, mut given) = (pattern.split('/').peekable(), path.split('/'));
    loop {
        let (next, segment) = (wanted.next(), given.next());
        match (next, segment) {
            (None, None) => return fit,
            (Some(""), Some(_)) if wanted.peek().is_none() && pattern.len() > 1 => return fit,
            (Some("*"), Some(segment)) if !segment.is_empty() => {}
            (Some(next), Some(segment)) if next == segment => {}
            (Some(next), Some(segment)) => match next.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) if is(name, segment) => {}
                Some(_) if !segment.is_empty() => fit = Fit::OtherValue,
                _ => return Fit::No,
            },
            _ => return Fit::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_by_segment() {
        let fit = |pattern, path| fits(pattern, path, |name, segment| name == "site" && segment == "one");
        assert_eq!(fit("/*/oauth2/v2.0/token", "/common/oauth2/v2.0/token"), Fit::Yes);
        assert_eq!(fit("/v2/", "/v2/users/me"), Fit::Yes);
        assert_eq!(fit("/ex/{site}/", "/ex/one/x"), Fit::Yes);
        assert_eq!(fit("/ex/{site}/", "/ex/two/x"), Fit::OtherValue);
        for (pattern, path) in [
            ("/*/token", "//token"),
            ("/*/token", "/a/token/more"),
            ("/v2/", "/v2"),
            ("/v2/", "/v21/x"),
            ("/ex/{site}/", "/ex//x"),
        ] {
            assert_eq!(fit(pattern, path), Fit::No, "{pattern} {path}");
        }
    }
}
