//! How a request says where it ends (RFC 9112 section 6). What two servers could read differently is refused: it is how
//! requests are smuggled past one of them.

/// Whether a raw head ends its lines with CR LF and frames the body in one way: one `Content-Length` of digits, or one
/// `Transfer-Encoding` that is `chunked`, or neither.
pub fn is_plain(head: &[u8]) -> bool {
    let bare_line_feed = memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r');
    if bare_line_feed {
        return false;
    }
    let (mut lengths, mut encodings, mut plain) = (0, 0, true);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            plain &= !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encodings += 1;
            plain &= value.eq_ignore_ascii_case(b"chunked");
        }
    }
    plain && lengths + encodings <= 1
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
