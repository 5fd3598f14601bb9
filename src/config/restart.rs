//! Which keys only a restart changes. Everything else takes effect with a reload.

use serde_json::Value;

use super::settings::Origin;
use crate::base::toml_document::Document;

/// The keys, and why. Those that are tables stand for all that is in them.
pub const KEYS: [(&str, &str); 8] = [
    ("threads", "they are started once"),
    ("public.listen", "the listener is open"),
    ("egress.listen", "the listener is open"),
    ("metrics.listen", "the listener is open"),
    ("admin.socket", "the listener is open"),
    ("store.directory", "the store is open, and locked by this process"),
    ("store.sentinel", "the store was compared with it at the start"),
    ("logging.format", "log lines of one process are of one kind"),
];

/// Why a key takes effect with a restart only, if so.
pub fn reason(key: &str) -> Option<&'static str> {
    let is_meant =
        |listed: &str| key.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    KEYS.iter().find(|(listed, _)| is_meant(listed)).map(|(_, why)| *why)
}

/// The document with the values that are in force in the place of those that need a restart, and the keys of these; nothing
/// if there are none.
pub(super) fn pinned(document: &Document, running: &Origin) -> Option<(Document, Vec<String>)> {
    let (mut value, mut needs_restart) = (document.value.clone(), Vec::new());
    for (key, _) in KEYS {
        let (new, in_force) = (at(&value, key).cloned(), at(&running.value, key).cloned());
        if new != in_force {
            put(&mut value, key, in_force);
            needs_restart.push(key.to_owned());
        }
    }
    (!needs_restart.is_empty()).then(|| (document.with_value(value), needs_restart))
}

fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(value, |value, name| value.get(name))
}

fn put(value: &mut Value, key: &str, new: Option<Value>) {
    let Some(map) = value.as_object_mut() else { return };
    match (key.split_once('.'), new) {
        (Some((table, rest)), new) => {
            let inner = map.entry(table).or_insert_with(|| Value::Object(serde_json::Map::new()));
            put(inner, rest, new);
        }
        (None, Some(new)) => drop(map.insert(key.to_owned(), new)),
        (None, None) => drop(map.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::base::toml_schema::schema_of;
    use crate::config::file::ConfigFile;

    fn document(text: &str) -> Document {
        Document::parse(Path::new("t.toml"), text).expect("valid TOML")
    }

    fn origin(text: &str) -> Origin {
        let value = document(text).value;
        let (written, needs_restart) = (value.clone(), Vec::new());
        Origin { file: "t.toml".into(), value, written, needs_restart, sources: Arc::default() }
    }

    #[test]
    fn what_is_in_force_stays_where_only_a_restart_changes_it() {
        let running = origin("threads = 2\n[public]\nlisten = 'a'\n[logging]\nlevel = 'info'\n");
        let next = document("[public]\nlisten = 'b'\n[store]\ndirectory = 'd'\n[logging]\nlevel = 'debug'\n");
        let (pinned, keys) = pinned(&next, &running).expect("something");
        assert_eq!(keys, ["threads", "public.listen", "store.directory"]);
        let expected = "threads = 2\n[public]\nlisten = 'a'\n[store]\n[logging]\nlevel = 'debug'\n";
        assert_eq!(pinned.value, document(expected).value);
        assert!(super::pinned(&document("threads = 2\n[public]\nlisten = 'a'\n"), &running).is_none());
    }

    #[test]
    fn every_listed_key_is_one_of_the_file() {
        let schema = schema_of::<ConfigFile>();
        for (key, why) in KEYS {
            let path = key.replace('.', "/");
            let names = path.split('/').collect::<Vec<_>>();
            let mut table = schema.clone();
            for name in &names {
                let property = table["properties"][*name].clone();
                assert!(property.is_object(), "{key}");
                let reference = property["allOf"][0]["$ref"].as_str().or(property["$ref"].as_str());
                table = match reference.and_then(|reference| reference.strip_prefix('#')) {
                    Some(pointer) => schema.pointer(pointer).cloned().expect("defined"),
                    None => property,
                };
            }
            assert_eq!(reason(key), Some(why));
        }
        assert_eq!(reason("egress.listen[1]"), Some("the listener is open"));
        assert_eq!(reason("public.listener"), None);
        assert_eq!(reason("public"), None);
    }
}
