//! A TOML file that still knows where everything stood: the content as JSON values, and a position for every key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong in a file, in words that say what, where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// The dotted key, empty for the file as a whole.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do about it, where we can guess.
    pub hint: Option<String>,
}

impl Problem {
    /// One of a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, key: String::new(), message: message.into(), hint: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        if self.key.is_empty() {
            write!(formatter, ": {}", self.message)?;
        } else {
            write!(formatter, ": {}: {}", self.key, self.message)?;
        }
        match &self.hint {
            Some(hint) => write!(formatter, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// The content; tables are objects, dates are strings.
    pub value: Value,
    positions: BTreeMap<String, Position>,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    key: (usize, usize),
    value: (usize, usize),
}

impl Document {
    /// Parses `text`; every syntax error is reported, not only the first.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mut problems: Vec<_> = errors.iter().map(|error| syntax_problem(file, text, error)).collect();
            problems.sort();
            return Err(problems);
        }
        Ok(Self::of(file, text, table.get_ref()))
    }

    /// What can be made out of `text`, whatever else is wrong with it.
    pub fn recovered(file: &Path, text: &str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        Self::of(file, text, table.get_ref())
    }

    fn of(file: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let lines = Lines::of(text);
        let mut positions = BTreeMap::new();
        let value = object(table, "", &lines, &mut positions);
        Self { file: file.to_owned(), value, positions }
    }

    /// The same file with another content, such as what it becomes once laid over another one.
    pub fn with_value(&self, value: Value) -> Self {
        Self { file: self.file.clone(), value, positions: self.positions.clone() }
    }

    /// Whether the file itself holds `path`.
    pub fn holds(&self, path: &str) -> bool {
        self.positions.contains_key(path)
    }

    /// Line and column of the key at `path`, if the file holds it.
    pub fn place_of(&self, path: &str) -> Option<(usize, usize)> {
        self.positions.get(path).map(|position| position.key)
    }

    /// A problem with the value at `path`, or, where that is missing, with the nearest table around it.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let (line, column) = self.nearest(path).map_or((0, 0), |position| position.value);
        self.at(path, (line, column), message)
    }

    /// A problem with the key at `path` itself.
    pub fn key_problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let (line, column) = self.nearest(path).map_or((0, 0), |position| position.key);
        self.at(path, (line, column), message)
    }

    fn at(&self, path: &str, (line, column): (usize, usize), message: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), line, column, key: path.to_owned(), message: message.into(), hint: None }
    }

    fn nearest(&self, path: &str) -> Option<&Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.positions.get(path) {
                return Some(position);
            }
            let end = path.rfind(['.', '['])?;
            path = &path[..end];
        }
    }
}

impl Problem {
    /// The same problem with advice.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `path.key`, quoted where the key is not a bare one.
pub fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Lays `over` upon `base`: tables are merged key by key, everything else is replaced.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(existing) => merge(existing, value),
                    None => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn syntax_problem(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let (line, column) = error.span().map_or((0, 0), |span| Lines::of(text).position(span.start));
    let message = error.message().replace('\n', ", ");
    Problem { file: file.to_owned(), line, column, key: String::new(), message, hint: None }
}

fn object(table: &DeTable<'_>, path: &str, lines: &Lines<'_>, positions: &mut BTreeMap<String, Position>) -> Value {
    let mut map = Map::new();
    for (key, value) in table.iter() {
        let path = join(path, key.get_ref());
        note(&path, key.span(), value.span(), lines, positions);
        map.insert(key.get_ref().to_string(), convert(value, &path, lines, positions));
    }
    Value::Object(map)
}

fn note(
    path: &str,
    key: Range<usize>,
    value: Range<usize>,
    lines: &Lines<'_>,
    positions: &mut BTreeMap<String, Position>,
) {
    positions.insert(path.to_owned(), Position { key: lines.position(key.start), value: lines.position(value.start) });
}

fn convert(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    lines: &Lines<'_>,
    positions: &mut BTreeMap<String, Position>,
) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Number(number.into()),
            Err(_) => Value::String(integer.as_str().to_owned()),
        },
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            number.map_or_else(|| Value::String(float.as_str().to_owned()), Value::Number)
        }
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    note(&path, item.span(), item.span(), lines, positions);
                    convert(item, &path, lines, positions)
                })
                .collect(),
        ),
        DeValue::Table(table) => object(table, path, lines, positions),
    }
}

/// Byte offsets to line and column.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { text, starts }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_keys_and_values() {
        let text = "a = 1\n[b.c]\n  d = [\n  \"x\", \"ü\", 7 ]\n[[e]]\nf = true\n";
        let document = Document::parse(Path::new("t.toml"), text).expect("valid");
        let place = |path: &str| {
            let problem = document.problem(path, "m");
            (problem.line, problem.column)
        };
        assert_eq!(place("a"), (1, 5));
        assert_eq!(place("b.c.d"), (3, 7));
        assert_eq!(place("b.c.d[2]"), (4, 13));
        assert_eq!(place("e[0].f"), (6, 5));
        assert_eq!(place("b.c.missing"), place("b.c"));
        assert_eq!(place("missing"), (0, 0));
        let problem = document.key_problem("b.c.d", "is odd").with_hint("mend it");
        assert_eq!(problem.to_string(), "t.toml:3:3: b.c.d: is odd (mend it)");
    }

    #[test]
    fn every_syntax_error_is_reported() {
        let problems = Document::parse(Path::new("t.toml"), "a = \nb = 1\nc = [\n").expect_err("broken");
        assert!(problems.len() >= 2, "{problems:?}");
        assert_eq!(problems[0].line, 1);
    }

    #[test]
    fn merging_replaces_values_and_keeps_the_rest() {
        let mut base = serde_json::json!({ "a": { "x": 1, "y": [1, 2] }, "b": 1 });
        merge(&mut base, &serde_json::json!({ "a": { "y": [3] }, "c": 2 }));
        assert_eq!(base, serde_json::json!({ "a": { "x": 1, "y": [3] }, "b": 1, "c": 2 }));
    }
}
