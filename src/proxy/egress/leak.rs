//! Whether a handle would leave: the marker that every handle contains, looked for in what goes out.
//!
//! What cannot be seen: compressed and otherwise encoded bodies, and what is inside a tunnel.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;

use super::caller::is_handle_shaped;
use crate::model::handle::MARKER;

/// How much of a stream must be remembered: the marker may begin in it and end in what follows.
const REMEMBERED: usize = MARKER.len() - 1;

/// Looks for the marker in a stream that comes in pieces of any size.
#[derive(Clone, Debug)]
pub struct LeakScanner {
    tail: [u8; REMEMBERED],
    length: usize,
    has_found: bool,
}

impl Default for LeakScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl LeakScanner {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self { tail: [0; REMEMBERED], length: 0, has_found: false }
    }

    /// Takes the next piece; whether the marker has been seen up to its end. A piece for which this says yes, and all after
    /// it, must not be sent.
    pub fn feed(&mut self, chunk: &[u8]) -> bool {
        self.has_found = self.has_found || self.is_across(chunk) || is_handle_shaped(chunk);
        self.remember(chunk);
        self.has_found
    }

    /// Whether the marker begins in an earlier piece and ends in this one.
    fn is_across(&self, chunk: &[u8]) -> bool {
        let begin = &chunk[..chunk.len().min(REMEMBERED)];
        let mut seam = [0; 2 * REMEMBERED];
        seam[..self.length].copy_from_slice(&self.tail[..self.length]);
        let end = self.length + begin.len();
        seam[self.length..end].copy_from_slice(begin);
        is_handle_shaped(&seam[..end])
    }

    fn remember(&mut self, chunk: &[u8]) {
        if let Some(end) = chunk.last_chunk::<REMEMBERED>() {
            self.tail = *end;
            self.length = REMEMBERED;
            return;
        }
        let kept = self.length.min(REMEMBERED - chunk.len());
        self.tail.copy_within(self.length - kept..self.length, 0);
        self.tail[kept..kept + chunk.len()].copy_from_slice(chunk);
        self.length = kept + chunk.len();
    }
}

/// Whether a handle stands in a request target: as it is, percent-encoded, or percent-encoded twice.
pub fn in_target(target: &str) -> bool {
    in_encoded(target.as_bytes(), is_handle_shaped)
}

/// Whether a handle stands in a header value: as it is, percent-encoded once or twice, or anywhere in base64 of either
/// alphabet (`Basic`, cookies, JWT payloads).
pub fn in_header_value(value: &[u8]) -> bool {
    in_encoded(value, |bytes| is_handle_shaped(bytes) || in_base64(bytes))
}

fn in_encoded(bytes: &[u8], holds: impl Fn(&[u8]) -> bool) -> bool {
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..2 {
        if holds(&bytes) {
            return true;
        }
        if memchr::memchr(b'%', &bytes).is_none() {
            return false;
        }
        bytes = Cow::Owned(percent_encoding::percent_decode(&bytes).collect());
    }
    holds(&bytes)
}

/// Base64 writes three bytes as four characters, so the marker has one of three appearances, whatever is around it. None
/// has a character in which the alphabets differ.
fn in_base64(bytes: &[u8]) -> bool {
    static APPEARANCES: LazyLock<[memmem::Finder<'static>; 3]> =
        LazyLock::new(|| [0, 1, 2].map(|before| memmem::Finder::new(&appearance(before)).into_owned()));
    bytes.len() >= MARKER.len() && APPEARANCES.iter().any(|finder| finder.find(bytes).is_some())
}

/// The characters that the marker alone decides when `before` bytes precede it in its group of three.
fn appearance(before: usize) -> String {
    let text = [vec![0; before], MARKER.as_bytes().to_vec()].concat();
    let first = (before * 8).div_ceil(6);
    let last = text.len() * 8 / 6;
    STANDARD_NO_PAD.encode(text)[first..last].to_owned()
}

/// A path as it may be shown: where a segment holds a handle, that is all that is said of it.
pub fn without_handles(path: &str) -> String {
    let shown = |segment| if in_target(segment) { "{handle}" } else { segment };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::base::random::{self, Random, SeededRandom};

    fn below(random: &dyn Random, end: usize) -> usize {
        u32::from_le_bytes(random::bytes(random)) as usize % end
    }

    #[test]
    fn a_marker_is_found_in_whatever_pieces_it_comes() {
        let random = SeededRandom::new(7);
        let mut found = 0;
        for _ in 0..20_000 {
            // Pieces of the marker make near misses; sometimes a whole one is among them.
            let mut text = Vec::new();
            for _ in 0..below(&random, 6) {
                let begin = below(&random, MARKER.len());
                let end = begin + below(&random, MARKER.len() - begin + 1);
                text.extend_from_slice(&MARKER.as_bytes()[begin..end]);
                if below(&random, 8) == 0 {
                    text.extend_from_slice(MARKER.as_bytes());
                }
            }
            let expected = is_handle_shaped(&text);
            let end_of_first = memmem::find(&text, MARKER.as_bytes()).map(|at| at + MARKER.len());
            found += usize::from(expected);
            let mut scanner = LeakScanner::new();
            let (mut at, mut is_seen) = (0, false);
            while at < text.len() {
                let next = at + 1 + below(&random, (text.len() - at).min(14));
                is_seen = scanner.feed(&text[at..next]);
                at = next;
                assert_eq!(is_seen, end_of_first.is_some_and(|end| end <= at), "{text:?} up to {at}");
                scanner.feed(b"");
            }
            assert_eq!(is_seen, expected);
        }
        assert!((1_000..19_000).contains(&found), "{found}");
    }

    #[test]
    fn a_marker_is_found_in_an_encoded_target() {
        let encoded = MARKER.replace('_', "%5F");
        for target in [
            format!("/a/{MARKER}b?c"),
            format!("/a?b={MARKER}"),
            format!("/a?b={encoded}"),
            format!("/a?b={}", encoded.replace('%', "%25")),
            format!("/{}", MARKER.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()),
        ] {
            assert!(in_target(&target), "{target}");
        }
        assert!(!in_target("/a/sidekey_h?b=%5F%25"));
    }

    #[test]
    fn a_path_is_shown_without_its_handles() {
        let path = format!("/~{MARKER}abc/github/user");
        assert_eq!(without_handles(&path), "/{handle}/github/user");
        assert_eq!(without_handles(&path.replace('_', "%5F")), "/{handle}/github/user");
        assert_eq!(without_handles("/github/user/"), "/github/user/");
    }

    #[test]
    fn a_marker_is_found_in_a_header_however_it_is_wrapped() {
        let handle = format!("{MARKER}Zm9vYmFy");
        for before in ["", "a", "ab", "abc", "user:", "{\"token\":\""] {
            let text = format!("{before}{handle}\"}}");
            for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                for value in [
                    format!("Basic {encoded}"),
                    format!("session={encoded}; x=y"),
                    format!("eyJhbGciOiJSUzI1NiJ9.{encoded}.c2ln"),
                    encoded.clone(),
                ] {
                    assert!(in_header_value(value.as_bytes()), "{value}");
                }
            }
            assert!(in_header_value(text.as_bytes()));
        }
        for other in ["Basic dXNlcjpwYXNz", "text/html;q=0.9", "sidekey", "", "c2lkZWtleQ=="] {
            assert!(!in_header_value(other.as_bytes()), "{other}");
        }
    }
}
