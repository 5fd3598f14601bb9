//! How a request says where it ends (RFC 9112 section 6). What two servers could read differently is refused: it is how
//! requests are smuggled past one of them.

/// Whether a raw head ends its lines with CR LF and frames the body in one way: one `Content-Length` of digits, or one
/// `Transfer-Encoding` that is `chunked`, or neither.
pub fn is_plain(head: &[u8]) -> bool {
    let (mut begin, mut framings) = (0, 0);
    for end in memchr::memchr_iter(b'\n', head) {
        let line = &head[begin..end];
        begin = end + 1;
        if line.last() != Some(&b'\r') {
            return false;
        }
        // Of all lines only two kinds matter; their first letters leave few to look at.
        if matches!(line[0], b'c' | b'C' | b't' | b'T') {
            match frames_body(line) {
                Some(true) => framings += 1,
                Some(false) => return false,
                None => {}
            }
        }
    }
    framings <= 1
}

/// Whether a header line frames the body, and if so, whether in a way that all servers read alike.
fn frames_body(line: &[u8]) -> Option<bool> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.eq_ignore_ascii_case(b"content-length") {
        Some(!value.is_empty() && value.iter().all(u8::is_ascii_digit))
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        Some(value.eq_ignore_ascii_case(b"chunked"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(lines: &str) -> bool {
        is_plain(format!("POST / HTTP/1.1\r\nhost: x\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn one_way_to_end_is_plain() {
        for lines in ["", "Content-Length: 6\r\n", "transfer-encoding: Chunked\r\n", "x-content-length: a\r\n"] {
            assert!(plain(lines), "{lines:?}");
        }
    }

    #[test]
    fn two_ways_and_odd_ones_are_not() {
        for lines in [
            "content-length: 6\r\ntransfer-encoding: chunked\r\n",
            "content-length: 6\r\ncontent-length: 6\r\n",
            "content-length: 6, 6\r\n",
            "content-length: +6\r\n",
            "content-length:\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "a: b\nc: d\r\n",
        ] {
            assert!(!plain(lines), "{lines:?}");
        }
    }
}
