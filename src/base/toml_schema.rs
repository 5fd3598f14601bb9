//! Checks a document against the JSON schema of the type it will become, and reports every problem at once: unknown
//! keys (with a "did you mean"), wrong types, values outside an enumeration, unreadable formats, missing keys.
//!
//! Serde alone stops at the first problem and does not know where it stood. The schema is derived from the same type, so
//! the two cannot disagree about which keys exist.

use std::str::FromStr;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::base::toml_document::{Document, Problem, join};
use crate::base::{address, duration, rate_limit, safe_url, size};

/// The JSON schema of `T`, as editors and [`check`] read it.
pub fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// What is said of a key that nothing is known of.
pub const UNKNOWN_KEY: &str = "is not a known key";

/// Whether a document must hold every required key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It stands alone.
    Whole,
    /// It will be laid over another one, so keys may be missing.
    Partial,
}

/// Every problem of `document` under `schema`.
pub fn check(document: &Document, schema: &Value, completeness: Completeness) -> Vec<Problem> {
    let mut walk = Walk { document, root: schema, completeness, problems: Vec::new() };
    walk.value(&document.value, schema, "");
    walk.problems.sort();
    walk.problems
}

struct Walk<'a> {
    document: &'a Document,
    root: &'a Value,
    completeness: Completeness,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, schema: &Value, path: &str) {
        let schema = self.resolve(schema);
        let alternatives: Vec<Value> =
            ["anyOf", "oneOf"].iter().filter_map(|word| schema[word].as_array()).flatten().cloned().collect();
        if !alternatives.is_empty() {
            return self.alternatives(value, &alternatives, path);
        }
        if let Some(all) = schema["allOf"].as_array() {
            for part in all.clone() {
                self.value(value, &part, path);
            }
        }
        if !type_fits(value, &schema) {
            let message = format!("{} is not allowed here; expected {}", shown(value), self.expected(&schema));
            self.problems.push(self.document.problem(path, message));
            return;
        }
        match value {
            Value::Object(map) => self.object(map, &schema, path),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, &schema["items"], &format!("{path}[{index}]"));
                }
            }
            _ => self.scalar(value, &schema, path),
        }
    }

    fn object(&mut self, map: &Map<String, Value>, schema: &Value, path: &str) {
        let empty = Map::new();
        let known = schema["properties"].as_object().unwrap_or(&empty);
        for (key, value) in map {
            let path = join(path, key);
            if let Some(schema) = known.get(key) {
                self.value(value, schema, &path);
            } else if schema["additionalProperties"].is_object() {
                self.value(value, &schema["additionalProperties"], &path);
            } else if schema["additionalProperties"] == Value::Bool(false) {
                self.problems.push(self.unknown_key(key, &path, known));
            }
        }
        if self.completeness == Completeness::Whole {
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(key) {
                    let path = join(path, key);
                    let message = format!("is missing; expected {}", self.expected(&self.resolve(&known[key])));
                    self.problems.push(self.document.key_problem(&path, message));
                }
            }
        }
    }

    fn unknown_key(&self, key: &str, path: &str, known: &Map<String, Value>) -> Problem {
        let problem = self.document.key_problem(path, UNKNOWN_KEY);
        match did_you_mean(key, known.keys().map(String::as_str)) {
            Some(similar) => problem.with_hint(format!("did you mean `{similar}`?")),
            None => problem.with_hint(format!("known here: {}", known.keys().cloned().collect::<Vec<_>>().join(", "))),
        }
    }

    fn scalar(&mut self, value: &Value, schema: &Value, path: &str) {
        let allowed = constants(schema);
        if !allowed.is_empty() && !allowed.contains(value) {
            let message = format!("{} is not allowed here; expected {}", shown(value), one_of(&allowed));
            let problem = self.document.problem(path, message);
            let similar = value.as_str().and_then(|text| did_you_mean(text, allowed.iter().filter_map(Value::as_str)));
            self.problems.push(match similar {
                Some(similar) => problem.with_hint(format!("did you mean `{similar}`?")),
                None => problem,
            });
        } else if let Some(expected) = unreadable(value, schema) {
            let is_secret = schema["format"] == "sidekey-secret";
            let shown = if is_secret { "the value".to_owned() } else { shown(value) };
            self.problems.push(self.document.problem(path, format!("{shown} is not {expected}")));
        }
    }

    /// Constants are gathered to one list; of real alternatives, the first that fits or else the first of the same type
    /// speaks.
    fn alternatives(&mut self, value: &Value, alternatives: &[Value], path: &str) {
        let alternatives: Vec<Value> =
            alternatives.iter().map(|schema| self.resolve(schema)).filter(|schema| schema["type"] != "null").collect();
        let constants: Vec<Value> = alternatives.iter().flat_map(constants).collect();
        if !constants.is_empty() && alternatives.iter().all(|schema| !self::constants(schema).is_empty()) {
            return self.scalar(value, &serde_json::json!({ "enum": constants }), path);
        }
        let mut same_type = None;
        for schema in &alternatives {
            let mut attempt = Walk { problems: Vec::new(), ..*self };
            attempt.value(value, schema, path);
            if attempt.problems.is_empty() {
                return;
            }
            if type_fits(value, schema) {
                same_type.get_or_insert(attempt.problems);
            }
        }
        self.problems.extend(same_type.unwrap_or_else(|| {
            let expected: Vec<_> = alternatives.iter().map(|schema| self.expected(schema)).collect();
            let message = format!("{} is not allowed here; expected {}", shown(value), expected.join(" or "));
            vec![self.document.problem(path, message)]
        }));
    }

    fn resolve(&self, schema: &Value) -> Value {
        resolve(self.root, schema)
    }

    fn expected(&self, schema: &Value) -> String {
        expected(self.root, schema)
    }
}

/// What a reference within the schema `root` stands for; anything else is itself.
pub fn resolve(root: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).cloned().unwrap_or(Value::Bool(true)),
        None => schema.clone(),
    }
}

/// What a schema within `root` accepts, in words.
pub fn expected(root: &Value, schema: &Value) -> String {
    if let Some(format) = schema["format"].as_str().and_then(format) {
        return format.expected.to_owned();
    }
    let constants = constants(schema);
    if !constants.is_empty() {
        return one_of(&constants);
    }
    let alternatives: Vec<_> = ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|word| schema[word].as_array())
        .flatten()
        .map(|schema| resolve(root, schema))
        .filter(|schema| schema["type"] != "null")
        .collect();
    let choices: Vec<Value> = alternatives.iter().flat_map(self::constants).collect();
    if !choices.is_empty() && alternatives.iter().all(|schema| !self::constants(schema).is_empty()) {
        return one_of(&choices);
    }
    if !alternatives.is_empty() {
        return alternatives.iter().map(|schema| expected(root, schema)).collect::<Vec<_>>().join(" or ");
    }
    let types: Vec<_> = types(schema).into_iter().filter(|name| *name != "null").map(article).collect();
    if types.is_empty() { "a value".to_owned() } else { types.join(" or ") }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn type_fits(value: &Value, schema: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => false,
        })
}

fn article(name: &str) -> String {
    match name {
        "object" => "a table".to_owned(),
        "array" => "a list".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => format!("a {other}"),
    }
}

fn constants(schema: &Value) -> Vec<Value> {
    match (&schema["enum"], schema.get("const")) {
        (Value::Array(values), _) => values.iter().filter(|value| !value.is_null()).cloned().collect(),
        (_, Some(value)) => vec![value.clone()],
        _ => Vec::new(),
    }
}

fn one_of(values: &[Value]) -> String {
    let shown: Vec<_> = values.iter().map(Value::to_string).collect();
    if shown.len() == 1 { shown[0].clone() } else { format!("one of {}", shown.join(", ")) }
}

/// The value as a message may show it: strings only in part, since an operator may have put a secret in the wrong place.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 24 => {
            format!("\"{}…\"", text.chars().take(8).collect::<String>().escape_debug())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    }
}

struct Format {
    expected: &'static str,
    reads: fn(&str) -> bool,
}

/// The formats that our own types declare in their schema.
fn format(name: &str) -> Option<Format> {
    let (expected, reads): (_, fn(&str) -> bool) = match name {
        "sidekey-duration" => (duration::EXPECTED, |text| duration::DurationText::from_str(text).is_ok()),
        "sidekey-url" => (safe_url::EXPECTED, |text| text.contains('{') || safe_url::SafeUrl::from_str(text).is_ok()),
        "sidekey-secret" => ("\"env:NAME\" or \"file:PATH\" (a secret never stands in the file itself)", |text| {
            ["env:", "file:"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        }),
        "sidekey-address" => {
            ("an address such as \"127.0.0.1:8700\"", |text| text.parse::<std::net::SocketAddr>().is_ok())
        }
        "sidekey-size" => (size::EXPECTED, |text| text.parse::<size::SizeText>().is_ok()),
        "sidekey-rate" => (rate_limit::EXPECTED, |text| text.parse::<rate_limit::Rate>().is_ok()),
        "sidekey-network" => (address::EXPECTED, |text| text.parse::<address::Network>().is_ok()),
        "sidekey-pattern" => ("a regular expression that begins with ^ and ends with $", |text| {
            text.starts_with('^') && text.ends_with('$') && regex_lite::Regex::new(text).is_ok()
        }),
        _ => return None,
    };
    Some(Format { expected, reads })
}

fn unreadable(value: &Value, schema: &Value) -> Option<String> {
    if let (Some(text), Some(format)) = (value.as_str(), schema["format"].as_str().and_then(format)) {
        return (!(format.reads)(text)).then(|| format.expected.to_owned());
    }
    let number = value.as_f64()?;
    let (minimum, maximum) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    let low = minimum.is_some_and(|minimum| number < minimum);
    let high = maximum.is_some_and(|maximum| number > maximum);
    (low || high).then(|| match (minimum, maximum) {
        (Some(minimum), Some(maximum)) => format!("between {minimum} and {maximum}"),
        (Some(minimum), None) => format!("at least {minimum}"),
        (_, maximum) => format!("at most {}", maximum.unwrap_or_default()),
    })
}

/// The known word closest to `word`, if one is close.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let similarity = |candidate: &str| {
        // Two letters that changed places are one slip, which weighs too much in a short word.
        let is_slip = word.len() > 2 && strsim::damerau_levenshtein(&word, candidate) == 1;
        strsim::jaro_winkler(&word, candidate).max(if is_slip { 0.81 } else { 0.0 })
    };
    known
        .map(|candidate| (similarity(candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;
    use crate::base::duration::DurationText;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Example {
        name: String,
        wait: Option<DurationText>,
        mood: Option<Mood>,
        #[schemars(range(min = 1, max = 9))]
        count: Option<u32>,
        nested: Option<std::collections::BTreeMap<String, Inner>>,
        list: Option<Vec<String>>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Inner {
        on: bool,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Mood {
        /// With a comment, so that the schema uses `oneOf`.
        Happy,
        Sad,
    }

    fn problems(text: &str, completeness: Completeness) -> Vec<String> {
        let document = Document::parse(Path::new("t.toml"), text).expect("valid TOML");
        check(&document, &schema_of::<Example>(), completeness).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn everything_at_once() {
        let text =
            "nmae = 'x'\nwait = '5 minutes'\nmood = 'hapy'\ncount = 10\nlist = ['a', 1]\n[nested.x]\nof = true\n";
        let expected = [
            "t.toml: name: is missing; expected a string",
            "t.toml:1:1: nmae: is not a known key (did you mean `name`?)",
            "t.toml:2:8: wait: \"5 minutes\" is not a duration such as \"500ms\", \"30s\", \"5m\", \"1h\" or \"30d\"",
            "t.toml:3:8: mood: \"hapy\" is not allowed here; expected one of \"sad\", \"happy\" (did you mean `happy`?)",
            "t.toml:4:9: count: 10 is not between 1 and 9",
            "t.toml:5:14: list[1]: 1 is not allowed here; expected a string",
            "t.toml:6:9: nested.x.on: is missing; expected true or false",
            "t.toml:7:1: nested.x.of: is not a known key (known here: on)",
        ];
        assert_eq!(problems(text, Completeness::Whole), expected);
    }

    #[test]
    fn a_partial_document_may_leave_keys_out() {
        assert_eq!(problems("wait = '5m'\n[nested.x]\n", Completeness::Partial), Vec::<String>::new());
        assert_eq!(problems("wait = 5", Completeness::Partial).len(), 1);
    }

    #[test]
    fn a_long_value_is_not_repeated_in_full() {
        let message = problems("mood = 'sk_live_0123456789abcdefghijkl'", Completeness::Partial).remove(0);
        assert!(message.contains("\"sk_live_…\"") && !message.contains("0123"), "{message}");
    }
}
