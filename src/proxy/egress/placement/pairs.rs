//! `name=value&name=value`, as queries and forms are written: found and replaced without touching anything else.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// Everything but what is unreserved (RFC 3986 section 2.3).
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How often a name stands there.
#[derive(Debug, PartialEq, Eq)]
pub enum Occurrence<'p> {
    /// Not at all.
    None,
    /// Once: its decoded value.
    Once(Cow<'p, [u8]>),
    /// More than once, or in a spelling that some servers take for it and others do not.
    Odd,
}

/// Looks for the one pair called `name`. Some servers separate pairs by semicolons too, and some do not tell upper from
/// lower case: what only they would take for it is odd.
pub fn find<'p>(pairs: &'p [u8], name: &str) -> Occurrence<'p> {
    let is_like = |pair: &[u8]| decoded(split(pair).0).eq_ignore_ascii_case(name.as_bytes());
    let like = pairs.split(|byte| matches!(byte, b'&' | b';')).filter(|pair| is_like(pair)).count();
    let mut same = pairs.split(|byte| *byte == b'&').map(split).filter(|(found, _)| decoded(found) == name.as_bytes());
    match (like, same.next()) {
        (0, None) => Occurrence::None,
        (1, Some((_, value))) => Occurrence::Once(decoded(value)),
        _ => Occurrence::Odd,
    }
}

/// The same pairs with another value for `name`, percent-encoded here.
pub fn replace(pairs: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(pairs.len() + value.len());
    for (index, pair) in pairs.split(|byte| *byte == b'&').enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        let (found, _) = split(pair);
        if decoded(found) == name.as_bytes() {
            out.extend_from_slice(found);
            out.push(b'=');
            percent_encode(value.as_bytes(), RESERVED).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        } else {
            out.extend_from_slice(pair);
        }
    }
    out
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[]),
    }
}

/// Percent-encoding undone, and `+` read as a space.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_found_once_or_is_odd() {
        let once = |text: &'static str| Occurrence::Once(Cow::Borrowed(text.as_bytes()));
        assert_eq!(find(b"a=1&token=x&b", "token"), once("x"));
        assert_eq!(find(b"%74oken=%78+y", "token"), once("x y"));
        assert_eq!(find(b"token", "token"), once(""));
        assert_eq!(find(b"tokens=x&my_token=y", "token"), Occurrence::None);
        assert_eq!(find(b"", "token"), Occurrence::None);
        for odd in ["token=x&token=x", "token=x&Token=y", "a=1;token=x", "TOKEN=x", "token=x;token=y"] {
            assert_eq!(find(odd.as_bytes(), "token"), Occurrence::Odd, "{odd}");
        }
    }

    #[test]
    fn only_the_value_changes() {
        assert_eq!(replace(b"a=%20+&%74oken=x&&b=1;2", "token", "s3c/+ret&"), b"a=%20+&%74oken=s3c%2F%2Bret%26&&b=1;2");
        assert_eq!(replace(b"token", "token", "x"), b"token=x");
        assert_eq!(replace(b"", "token", "x"), b"");
    }
}
