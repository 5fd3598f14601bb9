//! What children write to their standard error goes to the log: line by line, bounded in length and number, and without what
//! could be a secret.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::base::clock::{Clock, Timestamp};
use crate::base::secret::Secret;

/// Bytes of a line; the rest of it is left out.
const LONGEST_LINE: usize = 4096;
/// So many lines may come at once.
const BURST: u32 = 100;
/// So many milliseconds later another one may.
const MILLIS_PER_LINE: i64 = 100;

/// Reads until the child closes its standard error, and hands over what may be logged of it.
pub async fn read_lines(
    mut stderr: impl AsyncRead + Unpin,
    secrets: &[Secret],
    clock: &dyn Clock,
    mut log: impl FnMut(&str),
) {
    let (mut lines, mut gate) = (Lines::default(), Gate::new(clock.now()));
    let mut bytes = [0; 4096];
    loop {
        let count = stderr.read(&mut bytes).await.unwrap_or(0);
        let found = if count == 0 { lines.end() } else { lines.add(&bytes[..count]) };
        for line in found {
            match gate.pass(clock.now()) {
                Some(0) => log(&scrubbed(&line, secrets)),
                Some(left_out) => {
                    log(&format!("({left_out} lines were left out)"));
                    log(&scrubbed(&line, secrets));
                }
                None => {}
            }
        }
        if count == 0 {
            return;
        }
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn add(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            whole.extend(self.end());
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        whole
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.begun.len();
        self.is_cut |= bytes.len() > room;
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&bytes);
        let more = if std::mem::take(&mut self.is_cut) { "…" } else { "" };
        // What moves the cursor of a terminal, or ends a line of the log, is shown and not done.
        let plain: String = text
            .trim_end()
            .chars()
            .map(|letter| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter })
            .collect();
        if plain.is_empty() { Vec::new() } else { vec![format!("{plain}{more}")] }
    }
}

/// How many lines may pass.
struct Gate {
    budget: u32,
    refilled_at: Timestamp,
    left_out: u64,
}

impl Gate {
    fn new(now: Timestamp) -> Self {
        Self { budget: BURST, refilled_at: now, left_out: 0 }
    }

    /// Whether a line may pass now; if so, how many before it could not.
    fn pass(&mut self, now: Timestamp) -> Option<u64> {
        let earned = (now.as_millis() - self.refilled_at.as_millis()).max(0) / MILLIS_PER_LINE;
        if earned > 0 {
            self.budget = BURST.min(self.budget.saturating_add(u32::try_from(earned).unwrap_or(BURST)));
            self.refilled_at = now;
        }
        if self.budget == 0 {
            self.left_out += 1;
            return None;
        }
        self.budget -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

const SCRUBBED: &str = "[scrubbed]";

/// A line without the secrets that are known, and without what looks like one.
pub fn scrubbed(line: &str, secrets: &[Secret]) -> String {
    static HANDLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9._-]*sidekey_h_[A-Za-z0-9_-]*"));
    static USERINFO: LazyLock<Regex> = LazyLock::new(|| pattern(r"://[^/@\s]+@"));
    static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}"));
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"(?i)((?:token|secret|password|passwd|api_?key|private_?key|authorization|cookie)["']?\s*[=:]\s*["']?)[^\s"'&,;]{4,}"#,
        )
    });
    static LONG: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9_~+=.-]{28,}"));
    let mut text = line.to_owned();
    for secret in secrets {
        text = text.replace(secret.expose(), SCRUBBED);
    }
    let text = HANDLE.replace_all(&text, SCRUBBED);
    let text = USERINFO.replace_all(&text, format!("://{SCRUBBED}@"));
    let text = CREDENTIAL.replace_all(&text, format!("${{1}}${{2}}{SCRUBBED}"));
    let text = NAMED.replace_all(&text, format!("${{1}}{SCRUBBED}"));
    let random = |found: &Captures<'_>| {
        let word = &found[0];
        let is_random =
            word.bytes().any(|byte| byte.is_ascii_digit()) && word.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_random { SCRUBBED.to_owned() } else { word.to_owned() }
    };
    LONG.replace_all(&text, random).into_owned()
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns are read by a test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    #[test]
    fn secrets_are_not_logged_and_the_rest_is() {
        let known = [Secret::new("hunter2")];
        for (line, expected) in [
            ("listening on stdio", "listening on stdio"),
            ("my hunter2 is", "my [scrubbed] is"),
            ("using ghp_sidekey_h_AbC-9_ for all", "using [scrubbed] for all"),
            ("proxy http://sidekey_h_AbC9:x@127.0.0.1:8701", "proxy http://[scrubbed]@127.0.0.1:8701"),
            ("GET https://user:pass@host/x", "GET https://[scrubbed]@host/x"),
            ("Authorization: Bearer abc.def-123", "Authorization: [scrubbed] [scrubbed]"),
            ("sent bearer abcdefgh", "sent bearer [scrubbed]"),
            ("{\"refresh_token\": \"r-12345\", \"n\": 1}", "{\"refresh_token\": \"[scrubbed]\", \"n\": 1}"),
            ("client_secret=abcd1&x=1", "client_secret=[scrubbed]&x=1"),
            ("gho_16C7e42F292c6912E7710c838347Ae178B4a", "[scrubbed]"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[scrubbed]"),
            (
                "at /usr/lib/node_modules/@modelcontextprotocol/server-github/dist/index.js:12:7",
                "at /usr/lib/node_modules/@modelcontextprotocol/server-github/dist/index.js:12:7",
            ),
        ] {
            assert_eq!(scrubbed(line, &known), expected);
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_in_length_and_number() {
        let clock = ManualClock::at(Timestamp::from_millis(0));
        let mut written = vec![b'a'; LONGEST_LINE * 3];
        written.extend_from_slice(b"\n\x1b[2J\r\n\n");
        written.extend((0..500).flat_map(|number| format!("line {number}\n").into_bytes()));
        written.extend_from_slice(b"without an end");
        let mut logged = Vec::new();
        read_lines(written.as_slice(), &[], &clock, |line| logged.push(line.to_owned())).await;
        assert_eq!(logged[0].chars().count(), LONGEST_LINE + 1);
        assert_eq!(logged[1], "\u{fffd}[2J");
        assert_eq!((logged[2].as_str(), logged.len()), ("line 0", 100));
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let at = Timestamp::from_millis;
        let mut gate = Gate::new(at(0));
        assert!((0..BURST).all(|_| gate.pass(at(0)) == Some(0)));
        assert!((0..7).all(|_| gate.pass(at(0)).is_none()));
        assert_eq!(gate.pass(at(100)), Some(7));
        assert_eq!(gate.pass(at(100)), None);
    }
}
