//! What another configuration would change: keys of the file, and the content of files that it refers to. Secrets are
//! never told, only that they changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::restart;
use super::secret_ref::SecretRef;
use super::settings::Origin;
use crate::base::toml_document::join;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The dotted key, or the path of a file that was read.
    pub what: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its value in force; absent for files, for secrets, and where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value in the file; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Whether only a restart makes it take effect.
    pub needs_restart: bool,
}

/// What happened to a key or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// Its value is another one.
    Changed,
    /// It is there no more.
    Removed,
    /// The content of the file is another one; what it is, is not told.
    Content,
}

/// All changes from what is in force to what was read, keys first, whether they need a restart or not.
pub fn changes(in_force: &Origin, read: &Origin) -> Vec<Change> {
    let mut changes = of_keys(&in_force.value, &read.written);
    changes.extend(of_files(in_force, read));
    changes
}

fn of_keys(before: &Value, after: &Value) -> Vec<Change> {
    let (before, after) = (leaves(before), leaves(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |key: &String| {
        let (from, to) = (before.get(key), after.get(key));
        let kind = match (from, to) {
            (from, to) if from == to => return None,
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        let shown = |value: Option<&Value>| value.filter(|value| !is_secret(key, value)).cloned();
        let needs_restart = restart::reason(key).is_some();
        Some(Change { what: key.clone(), kind, from: shown(from), to: shown(to), needs_restart })
    };
    keys.into_iter().filter_map(change).collect()
}

fn of_files(before: &Origin, after: &Origin) -> Vec<Change> {
    let (was, is) = (before.sources.digests(), after.sources.digests());
    let paths: BTreeSet<_> = was.keys().chain(is.keys()).filter(|path| **path != after.file).collect();
    let change = |path: &std::path::PathBuf| {
        let kind = match (was.get(path), is.get(path)) {
            (before, after) if before == after => return None,
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Content,
        };
        Some(Change { what: path.display().to_string(), kind, from: None, to: None, needs_restart: false })
    };
    paths.into_iter().filter_map(change).collect()
}

/// Every value that is no table, by its key.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn gather(value: &Value, key: &str, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() || !key.contains('.') => {
                map.iter().for_each(|(name, value)| gather(value, &join(key, name), found));
            }
            _ => drop(found.insert(key.to_owned(), value.clone())),
        }
    }
    let mut found = BTreeMap::new();
    gather(value, "", &mut found);
    found
}

/// Whether a value in the file may be a secret by itself, or as good as one: also where somebody wrote one by mistake.
pub(super) fn is_secret(key: &str, value: &Value) -> bool {
    let last = key.rsplit('.').next().unwrap_or_default();
    match last {
        "upstream_proxy" | "secret_hash" | "hash" => true,
        "client_secret" | "key" | "keys" | "signing_keys" | "tls" => !is_reference(value),
        _ => false,
    }
}

/// Whether all text in it only says where something is.
fn is_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.parse::<SecretRef>().is_ok(),
        Value::Array(values) => values.iter().all(is_reference),
        Value::Object(map) => map.iter().all(|(name, value)| name != "key" || is_reference(value)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::base::sources::Sources;
    use crate::base::toml_document::Document;

    fn origin(home: &Path, text: &str, files: &[&str]) -> Origin {
        let sources = Arc::new(Sources::default());
        files.iter().for_each(|file| drop(sources.read(&home.join(file))));
        let value = Document::parse(Path::new("t.toml"), text).expect("valid TOML").value;
        let (written, needs_restart) = (value.clone(), Vec::new());
        Origin { file: PathBuf::from("t.toml"), value, written, needs_restart, sources }
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| serde_json::to_string(change).expect("JSON")).collect()
    }

    #[test]
    fn keys_are_compared_one_by_one() {
        let home = Path::new("/");
        let before = origin(home, "threads = 2\n[clients.a]\nname = 'A'\nsecret_hash = 'x'\n[egress]\n", &[]);
        let after = origin(
            home,
            "threads = 4\n[clients.a]\nname = 'A'\nsecret_hash = 'y'\n[clients.'b.c']\nname = 'B'\n[egress]\nhosts = ['h']\n",
            &[],
        );
        assert_eq!(
            shown(&changes(&before, &after)),
            [
                r#"{"what":"clients.\"b.c\".name","kind":"added","to":"B","needs_restart":false}"#,
                r#"{"what":"clients.a.secret_hash","kind":"changed","needs_restart":false}"#,
                r#"{"what":"egress.hosts","kind":"added","to":["h"],"needs_restart":false}"#,
                r#"{"what":"threads","kind":"changed","from":2,"to":4,"needs_restart":true}"#,
            ]
        );
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn of_files_only_their_change_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).expect("written");
        write("a", "secret one");
        write("b", "b");
        let before = origin(home.path(), "", &["a", "b"]);
        write("a", "secret two");
        write("c", "c");
        let after = origin(home.path(), "", &["a", "c"]);
        let expected: Vec<String> = [("a", "content"), ("b", "removed"), ("c", "added")]
            .map(|(name, kind)| {
                let path = home.path().join(name);
                format!(r#"{{"what":"{}","kind":"{kind}","needs_restart":false}}"#, path.display())
            })
            .into();
        assert_eq!(shown(&changes(&before, &after)), expected);
    }
}
