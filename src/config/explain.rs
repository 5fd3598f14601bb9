//! What a key of the configuration file means.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::ConfigFile;
use super::restart;
use crate::base::files;
use crate::base::toml_document::{Document, join};
use crate::base::toml_schema::{did_you_mean, expected, resolve, schema_of};

/// All there is to say about a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The key as it was asked for.
    pub key: String,
    /// What it means.
    pub meaning: String,
    /// What its value may be.
    pub expects: String,
    /// What holds where it is left out, if that can be said in one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Its value in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Where that stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Why a change takes effect with a restart only, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_restart: Option<&'static str>,
    /// Of a table: the keys in it, and what they mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<(String, String)>,
}

/// Explains a dotted key; `file` is where its value is looked for. The error says what was probably meant.
pub fn explain(key: &str, file: Option<&Document>) -> Result<Explanation, String> {
    let root = schema_of::<ConfigFile>();
    let segments = segments(key).ok_or_else(|| format!("{key:?} is not a key; write it like `egress.listen`"))?;
    let (mut schema, mut meaning, mut default, mut path) = (root.clone(), String::new(), None, String::new());
    for segment in &segments {
        let table = table_of(&root, &schema);
        let property = match table["properties"].get(segment) {
            Some(property) => property.clone(),
            None if table["additionalProperties"].is_object() => table["additionalProperties"].clone(),
            None => return Err(unknown(&path, segment, &table)),
        };
        path = join(&path, segment);
        let described = resolve(&root, &property);
        let text = property["description"].as_str().or(described["description"].as_str()).unwrap_or_default();
        meaning = text.replace('\n', " ");
        default = property.get("default").filter(|value| !value.is_null() && !value.is_object()).cloned();
        schema = property;
    }
    let table = table_of(&root, &schema);
    let known = table["properties"].as_object().cloned().unwrap_or_default();
    let is_table = !known.is_empty() || table["additionalProperties"].is_object();
    Ok(Explanation {
        meaning,
        expects: if is_table { "a table".to_owned() } else { expected(&root, &resolve(&root, &schema)) },
        default: default.or_else(|| default_of(&path, &segments)),
        value: file.and_then(|file| value_at(&file.value, &segments)).map(|value| without_secret(&path, value)),
        line: file.and_then(|file| file.place_of(&path)).map(|(line, _)| line),
        needs_restart: restart::reason(&path),
        keys: keys_of(&root, &known),
        key: path,
    })
}

/// The annotated configuration: what it sets, but for an example of a provider and the key, are the defaults.
const ANNOTATED: &str = include_str!("../../config/sidekey.toml");

fn default_of(path: &str, segments: &[String]) -> Option<Value> {
    let is_example =
        EXAMPLES.iter().any(|example| segments.first().is_some_and(|table| table == example)) || path == "store.keys";
    let annotated = Document::parse(Path::new("sidekey.toml"), ANNOTATED).ok().filter(|_| !is_example)?;
    value_at(&annotated.value, segments).filter(|value| !value.is_object()).cloned()
}

/// Tables of the annotated configuration that hold examples.
const EXAMPLES: [&str; 3] = ["providers", "clients", "servers"];

/// Reads the file for [`explain`], as far as that is possible.
pub fn document(path: &Path) -> Option<Document> {
    Document::parse(path, &files::read_to_string(path).ok()?).ok()
}

/// The dotted key in its parts, quotes taken off; nothing if it is none.
fn segments(key: &str) -> Option<Vec<String>> {
    let (mut segments, mut rest) = (Vec::new(), key);
    loop {
        let (segment, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        segments.push(Some(segment.to_owned()).filter(|segment| !segment.is_empty())?);
        rest = match after.strip_prefix('.') {
            Some(next) => next,
            None if after.is_empty() => return Some(segments),
            None => return None,
        };
    }
}

/// The table that a schema stands for, behind references and `null`.
fn table_of(root: &Value, schema: &Value) -> Value {
    let schema = resolve(root, schema);
    let inner = ["allOf", "anyOf"].iter().filter_map(|word| schema[word].as_array()).flatten();
    let tables = inner.map(|schema| resolve(root, schema)).find(|schema| schema["type"] == "object");
    tables.unwrap_or(schema)
}

fn keys_of(root: &Value, known: &Map<String, Value>) -> Vec<(String, String)> {
    let meaning = |property: &Value| {
        let described = resolve(root, property);
        let text = property["description"].as_str().or(described["description"].as_str()).unwrap_or_default();
        text.replace('\n', " ")
    };
    known.iter().map(|(key, property)| (key.clone(), meaning(property))).collect()
}

fn unknown(path: &str, segment: &str, table: &Value) -> String {
    let place = if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") };
    let Some(known) = table["properties"].as_object() else {
        return format!("{path} holds no further keys");
    };
    let hint = match did_you_mean(segment, known.keys().map(String::as_str)) {
        Some(similar) => format!("did you mean `{}`?", join(path, similar)),
        None => format!("known there: {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    format!("{segment:?} is not a key of {place} ({hint})")
}

fn value_at<'v>(value: &'v Value, segments: &[String]) -> Option<&'v Value> {
    segments.iter().try_fold(value, |value, segment| value.get(segment))
}

fn without_secret(path: &str, value: &Value) -> Value {
    if super::diff::is_secret(path, value) { Value::from("(not shown)") } else { value.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_stands_in_the_file_by_mistake_is_not_shown() {
        for (path, value, is_shown) in [
            ("providers.books.client_secret", "\"in the clear\"", false),
            ("providers.books.client_secret", "\"file:books.secret\"", true),
            ("store.keys", "[\"file:a\", \"in the clear\"]", false),
            ("store.keys", "[\"env:A\", \"file:b\"]", true),
            ("public.tls", "{\"certificate\": \"c.pem\", \"key\": \"in the clear\"}", false),
            ("public.tls", "{\"certificate\": \"c.pem\", \"key\": \"file:k.pem\"}", true),
            ("egress.listen", "\"127.0.0.1:1\"", true),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            let expected = if is_shown { value.clone() } else { Value::from("(not shown)") };
            assert_eq!(without_secret(path, &value), expected, "{path} {value}");
        }
    }

    fn file() -> Document {
        let text = "threads = 3\n[egress]\nupstream_proxy = 'http://u:p@h:1'\n[providers.books]\nclient_id = 'x'\n";
        Document::parse(Path::new("t.toml"), text).expect("valid")
    }

    #[test]
    fn a_key_is_explained_with_its_value_and_place() {
        let threads = explain("threads", Some(&file())).expect("a key");
        assert_eq!(threads.meaning, "Worker threads of the data plane; default: one per processor.");
        assert_eq!(
            (threads.expects.as_str(), &threads.value, threads.line),
            ("a whole number", &Some(3.into()), Some(1))
        );
        assert_eq!(threads.needs_restart, Some("they are started once"));
        let level = explain("logging.level", Some(&file())).expect("a key");
        assert!(level.expects.starts_with("one of ") && level.expects.contains("\"debug\""), "{}", level.expects);
        assert_eq!((level.default, level.value, level.needs_restart), (Some("info".into()), None, None));
        let client = explain("providers.books.client_id", Some(&file())).expect("a key");
        assert!(client.meaning.starts_with("The client id") && client.line == Some(5), "{client:?}");
        assert_eq!(explain("providers.\"b.c\".client_id", None).expect("a key").line, None);
    }

    /// So that they can be told as such.
    #[test]
    fn what_the_annotated_configuration_sets_is_the_default() {
        let mut annotated = Document::parse(Path::new("sidekey.toml"), ANNOTATED).expect("valid").value;
        let tables = annotated.as_object_mut().expect("a table");
        EXAMPLES.iter().for_each(|table| drop(tables.remove(*table)));
        tables["store"].as_object_mut().expect("a table").remove("keys");
        let read: ConfigFile = serde_json::from_value(annotated).expect("a configuration");
        assert_eq!(format!("{read:?}"), format!("{:?}", ConfigFile::default()));
        assert_eq!(explain("egress.listen", None).expect("a key").default, Some("127.0.0.1:8701".into()));
        assert_eq!(explain("store.keys", None).expect("a key").default, None);
    }

    #[test]
    fn a_table_names_its_keys() {
        let egress = explain("egress", Some(&file())).expect("a table");
        assert_eq!(egress.expects, "a table");
        assert!(egress.keys.iter().any(|(key, meaning)| key == "tunnel_hosts" && meaning.contains("tunnels")));
        let provider = explain("providers.NAME", None).expect("a table");
        assert!(provider.keys.iter().any(|(key, _)| key == "client_secret"));
    }

    #[test]
    fn what_may_hold_a_secret_is_not_shown() {
        let proxy = explain("egress.upstream_proxy", Some(&file())).expect("a key");
        assert_eq!((proxy.value, proxy.line), (Some("(not shown)".into()), Some(3)));
    }

    #[test]
    fn of_an_unknown_key_the_likely_one_is_named() {
        let refused = |key: &str| explain(key, None).expect_err("unknown");
        assert_eq!(refused("egres"), "\"egres\" is not a key of the file (did you mean `egress`?)");
        assert_eq!(refused("egress.lisen"), "\"lisen\" is not a key of [egress] (did you mean `egress.listen`?)");
        assert!(refused("metrics.zzz").ends_with("(known there: listen)"));
        assert_eq!(refused("threads.x"), "threads holds no further keys");
        for odd in ["", ".", "a..b", "egress.", "\"a", "\"a\"b"] {
            assert!(refused(odd).contains("is not a key"), "{odd}");
        }
    }

    /// Every key of every table, so that none is added without words.
    #[test]
    fn every_key_can_be_explained() {
        let mut open = vec![String::new()];
        let mut explained = 0;
        while let Some(path) = open.pop() {
            let keys = match path.as_str() {
                "" => keys_of(
                    &schema_of::<ConfigFile>(),
                    schema_of::<ConfigFile>()["properties"].as_object().expect("a table"),
                ),
                path => explain(path, None).unwrap_or_else(|why| panic!("{why}")).keys,
            };
            for (key, meaning) in keys {
                let path = join(&path, &key);
                assert!(!meaning.is_empty(), "{path} is not documented");
                explained += 1;
                let explanation = explain(&path, None).unwrap_or_else(|why| panic!("{why}"));
                assert!(!explanation.expects.is_empty(), "{path}");
                if explanation.expects == "a table" {
                    let named = explanation.keys.is_empty();
                    open.push(if named { format!("{path}.NAME") } else { path });
                }
            }
        }
        assert!(explained > 100, "{explained}");
    }
}
