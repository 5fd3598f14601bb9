//! What commands print for people: tables whose columns stand below one another, times as one would say them, and colours where
//! a terminal shows them (never where `NO_COLOR` is set).

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::base::clock::{Clock, SystemClock, Timestamp};

/// How a word is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Notable,
    /// Something does not work.
    Bad,
    /// Beside the point.
    Quiet,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Notable => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Quiet => Style::new().dimmed(),
        }
    }

    /// The text in its colour.
    pub fn paint(self, text: &str) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// Writes a line for people or programs; colours only for a terminal. A reader that has gone away is no error.
pub fn say(line: &str) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// The same for what is not the result: on standard error.
pub fn remark(line: &str) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// A text in a table, and how it is to be taken.
pub struct Cell(pub String, pub Tone);

impl Cell {
    /// As it is; `-` for nothing.
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self(if text.is_empty() { "-".to_owned() } else { text }, Tone::Plain)
    }
}

/// Rows below their headings, each column as wide as its widest text.
pub fn table(headings: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let width = |column: usize| {
        let texts = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count());
        texts.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = (&str, Tone)>| {
        let padded = cells.zip(&widths).map(|((text, tone), width)| (format!("{text:width$}"), tone));
        let cells: Vec<(String, Tone)> = padded.collect();
        let last = cells.len().saturating_sub(1);
        let painted = cells.iter().enumerate().map(|(at, (text, tone))| {
            // No spaces at the end of a line.
            let text = if at == last { text.trim_end() } else { text.as_str() };
            tone.paint(text)
        });
        painted.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().map(|heading| (*heading, Tone::Quiet)))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(|cell| (cell.0.as_str(), cell.1)))));
    lines
}

/// Names and what is to be said of each, below one another; what has nothing to be said is left out.
pub fn facts(pairs: &[(&str, Option<String>)]) -> Vec<String> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, Option<String>)| {
        value.as_ref().map(|value| format!("  {}  {value}", Tone::Quiet.paint(&format!("{name:width$}"))))
    };
    pairs.iter().filter_map(line).collect()
}

/// The present moment.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// A time in an answer as one would say it: `in 43 min`, `2 h ago`. Nothing where there is none.
pub fn relative(time: &Value) -> Option<String> {
    Some(distance(parse(time.as_str()?)?, now()))
}

/// The same, and the time itself behind it.
pub fn relative_and_exact(time: &Value) -> Option<String> {
    Some(format!("{} ({})", relative(time)?, time.as_str()?))
}

fn parse(text: &str) -> Option<Timestamp> {
    let moment: SystemTime = humantime::parse_rfc3339_weak(text).ok()?;
    let millis = moment.duration_since(UNIX_EPOCH).ok()?.as_millis();
    i64::try_from(millis).ok().map(Timestamp::from_millis)
}

/// How far a moment is from another.
pub fn distance(moment: Timestamp, now: Timestamp) -> String {
    // Times are told to the second: half of one is neither before nor after.
    let seconds = (moment.as_millis() - now.as_millis()).div_euclid(1000);
    match seconds {
        -1..=1 => "now".to_owned(),
        2.. => format!("in {}", rough(seconds.unsigned_abs())),
        _ => format!("{} ago", rough(seconds.unsigned_abs())),
    }
}

/// A number of seconds as one would say it.
fn rough(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / MINUTE, "min"),
        7200..172_800 => (seconds / HOUR, "h"),
        _ => (seconds / DAY, "days"),
    };
    format!("{number} {unit}")
}

/// A number of milliseconds as one would say it.
pub fn took(millis: &Value) -> String {
    let duration = Duration::from_millis(millis.as_u64().unwrap_or(0));
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// The text at a key, or `-`.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}

/// The texts in a list.
pub fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_do() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let at = |seconds: i64| distance(Timestamp::from_millis(now.as_millis() + seconds * 1000), now);
        for (seconds, told) in [
            (0, "now"),
            (1, "now"),
            (59, "in 59 s"),
            (43 * 60 + 5, "in 43 min"),
            (3 * 3600, "in 3 h"),
            (3 * 86_400 + 1, "in 3 days"),
            (-90, "90 s ago"),
            (-12 * 60, "12 min ago"),
            (-47 * 3600, "47 h ago"),
            (-49 * 3600, "2 days ago"),
        ] {
            assert_eq!(at(seconds), told);
        }
        assert_eq!((relative(&Value::Null), relative(&Value::from("soon"))), (None, None));
    }

    #[test]
    fn columns_stand_below_one_another_with_and_without_colours() {
        let rows = [
            vec![Cell::plain("alice"), Cell("active".to_owned(), Tone::Good), Cell::plain("")],
            vec![Cell::plain("é"), Cell("x".to_owned(), Tone::Bad), Cell::plain("long")],
        ];
        let lines = table(&["WHO", "STATE", "NOTE"], &rows);
        let plain: Vec<String> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(plain, ["WHO    STATE   NOTE", "alice  active  -", "é      x       long"]);
        assert!(lines[1].contains("\u{1b}[32mactive"), "{:?}", lines[1]);
    }
}
