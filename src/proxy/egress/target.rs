//! The request target, judged as it will go out (RFC 9112 section 3.2, RFC 3986).
//!
//! What a provider's server would read differently from us is refused, never repaired: dot segments in any spelling,
//! empty segments, backslashes, control characters, doubly encoded text, anything that is not UTF-8.

use percent_encoding::percent_decode_str;

/// A target in origin form whose every byte is accounted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'r> {
    /// The path's segments, as they were sent. The last one may be empty.
    pub segments: Vec<&'r str>,
    /// The query, as it was sent.
    pub query: Option<&'r str>,
    /// Whether anything in the path is percent-encoded.
    pub is_encoded: bool,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Not a path that begins with one slash.
    NotOriginForm,
    /// A byte that does not belong into a target, or a fragment.
    OddByte,
    /// An empty segment.
    EmptySegment,
    /// A dot segment, in any spelling.
    DotSegment,
    /// A percent sign that encodes nothing, something encoded twice, or a byte that may not be encoded.
    OddEncoding,
}

impl TargetError {
    /// What is wrong, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotOriginForm => "it is not a path that begins with a single slash",
            Self::OddByte => "it contains a character that must be percent-encoded, or a fragment",
            Self::EmptySegment => "it contains an empty path segment",
            Self::DotSegment => "it contains a dot segment",
            Self::OddEncoding => "it contains percent-encoding that servers read in different ways",
        }
    }
}

/// Reads the target of a raw request head.
pub fn of_request_head(head: &[u8]) -> Option<&[u8]> {
    let line = &head[..memchr::memchr2(b'\r', b'\n', head)?];
    let first = memchr::memchr(b' ', line)?;
    let last = memchr::memrchr(b' ', line)?;
    line.get(first + 1..last)
}

/// Takes a raw target apart.
pub fn parse(raw: &[u8]) -> Result<Target<'_>, TargetError> {
    let text = std::str::from_utf8(raw).map_err(|_| TargetError::OddByte)?;
    if !text.starts_with('/') || text.starts_with("//") {
        return Err(TargetError::NotOriginForm);
    }
    let (path, query) = match memchr::memchr(b'?', raw) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let query_is_plain = query.unwrap_or_default().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let mut is_plain = true;
    let mut is_encoded = false;
    for &byte in path.as_bytes() {
        is_plain &= IS_PATH_BYTE[usize::from(byte)];
        is_encoded |= byte == b'%';
    }
    if !is_plain || !query_is_plain {
        return Err(TargetError::OddByte);
    }
    let mut segments = Vec::with_capacity(8);
    let mut begin = 1;
    for slash in memchr::memchr_iter(b'/', &path.as_bytes()[1..]) {
        if slash + 1 == begin {
            return Err(TargetError::EmptySegment);
        }
        segments.push(&path[begin..slash + 1]);
        begin = slash + 2;
    }
    segments.push(&path[begin..]);
    let check = if is_encoded { check_segment } else { check_dots };
    segments.iter().try_for_each(|segment| check(segment))?;
    Ok(Target { segments, query, is_encoded })
}

/// RFC 3986 `pchar` and the slash, and braces, which a caller may send in a placeholder such as `{realm_id}`.
const IS_PATH_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let punctuation = b"/%-._~!$&'()*+,;=:@{}";
    let mut index = 0;
    while index < punctuation.len() {
        table[punctuation[index] as usize] = true;
        index += 1;
    }
    table
};

fn check_segment(segment: &str) -> Result<(), TargetError> {
    if segment.contains('%') {
        check_encoding(segment.as_bytes())?;
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| TargetError::OddEncoding)?;
        // An encoded slash may be allowed later on; what it separates is never a dot segment.
        return decoded.split('/').try_for_each(check_dots);
    }
    check_dots(segment)
}

/// `..;x` is a dot segment to servers that know path parameters.
fn check_dots(piece: &str) -> Result<(), TargetError> {
    if !piece.starts_with('.') {
        return Ok(());
    }
    let name = piece.split_once(';').map_or(piece, |(name, _)| name);
    if name == "." || name == ".." { Err(TargetError::DotSegment) } else { Ok(()) }
}

fn check_encoding(segment: &[u8]) -> Result<(), TargetError> {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'%', &segment[at..]) {
        let digits = segment.get(at + found + 1..at + found + 3).ok_or(TargetError::OddEncoding)?;
        let byte = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or(TargetError::OddEncoding)?;
        at += found + 3;
        let encodes_again =
            byte == b'%' && segment.get(at..at + 2).is_some_and(|next| next.iter().all(u8::is_ascii_hexdigit));
        if byte.is_ascii_control() || byte == b'\\' || encodes_again {
            return Err(TargetError::OddEncoding);
        }
    }
    Ok(())
}

/// Whether a segment holds an encoded slash.
pub fn has_encoded_slash(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .any(|at| bytes.get(at..at + 3).is_some_and(|three| three.eq_ignore_ascii_case(b"%2f")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(raw: &str) -> Option<TargetError> {
        parse(raw.as_bytes()).err()
    }

    #[test]
    fn ordinary_targets_keep_every_byte() {
        let target = parse(b"/quickbooks/v3/company/%7Brealm_id%7D/query?query=select%20*%20from%20Invoice&x=/../y");
        let target = target.expect("good");
        assert_eq!(target.segments, ["quickbooks", "v3", "company", "%7Brealm_id%7D", "query"]);
        assert_eq!(target.query, Some("query=select%20*%20from%20Invoice&x=/../y"));
        assert_eq!(parse(b"/a/").expect("good").segments, ["a", ""]);
        assert_eq!(parse(b"/a/b.c/..d/...").expect("good").segments.len(), 4);
        assert_eq!(error("/a/100%25"), None);
        assert_eq!(error("/a/gr%C3%BC%C3%9Fe"), None);
        assert_eq!(error("/a/group%2Fname"), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for raw in ["", "*", "@evil/v1", "evil:80/v1", "v1/a", "\\v1\\a", ";/v1", "?x=/v1", "//admin", "http://h/v1"] {
            assert_eq!(error(raw), Some(TargetError::NotOriginForm), "{raw}");
        }
    }

    #[test]
    fn dot_segments_in_every_spelling_are_refused() {
        for raw in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/.%2e/",
            "/v1/%2E./x",
            "/v1/..%2f",
            "/v1%2f..%2fadmin",
            "/v1/..;/",
            "/v1/..;x=1/a",
            "/v1/.",
            "/v1/..",
            "/v1/%2e",
            "/./v1",
        ] {
            assert_eq!(error(raw), Some(TargetError::DotSegment), "{raw}");
        }
    }

    #[test]
    fn odd_encodings_are_refused() {
        for raw in [
            "/v1/%252e%252e%252f",
            "/v1/%5c..",
            "/v1/%c0%ae",
            "/v1/%u002e",
            "/v1/a%00",
            "/v1/%",
            "/v1/%2",
            "/v1/%zz",
            "/v1/%0d%0a",
            "/v1/%7f",
            "/v1/%+1",
            "/v1/%ff",
        ] {
            assert_eq!(error(raw), Some(TargetError::OddEncoding), "{raw}");
        }
    }

    #[test]
    fn odd_bytes_are_refused() {
        for raw in [
            "/v1/..\\",
            "/v1/ok#/../admin",
            "/v1/a?x#y",
            "/a b",
            "/a\tb",
            "/a\x7f",
            "/ä",
            "/a\"b",
            "/a<b>",
            "/a|b",
            "/a^b",
            "/a?b c",
        ] {
            assert_eq!(error(raw), Some(TargetError::OddByte), "{raw}");
        }
        assert_eq!(parse(b"/a\xff"), Err(TargetError::OddByte));
    }

    #[test]
    fn empty_segments_are_refused() {
        for raw in ["/v1//..//admin", "/v1//a", "/v1/a//"] {
            assert_eq!(error(raw), Some(TargetError::EmptySegment), "{raw}");
        }
    }

    #[test]
    fn the_target_of_a_head_is_all_between_the_first_and_the_last_space() {
        assert_eq!(of_request_head(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"), Some(b"/a".as_slice()));
        assert_eq!(of_request_head(b"GET /a /b HTTP/1.1\r\n"), Some(b"/a /b".as_slice()));
        assert_eq!(of_request_head(b"GET /a#b HTTP/1.1\r\n"), Some(b"/a#b".as_slice()));
        assert_eq!(of_request_head(b"GET\r\n"), None);
    }
}
