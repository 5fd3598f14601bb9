//! Where the server listens for commands: all that is needed of a configuration to talk about what is wrong with it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::files;
use crate::base::toml_document::{Document, Problem};

/// The admin socket that the file at `path` names. Only what makes it impossible to tell is a problem here.
pub fn admin_socket(path: &Path) -> Result<PathBuf, Vec<Problem>> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read the configuration: {error}");
        let problem = Problem { file: path.into(), line: 0, column: 0, key: String::new(), message, hint: None };
        vec![problem.with_hint("`sidekey init` writes one to start from; --config says where it is")]
    };
    let text = files::read_to_string(path).map_err(unreadable)?;
    Document::parse(path, &text).map(|document| socket(&document))
}

fn socket(document: &Document) -> PathBuf {
    let home = document.file.parent().unwrap_or(Path::new(""));
    let text = |table: &str, key: &str| document.value[table].get(key).and_then(Value::as_str);
    match text("admin", "socket") {
        Some(socket) => home.join(socket),
        None => home.join(text("store", "directory").unwrap_or("data")).join("admin.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_whatever_else_is_wrong() {
        let at = |text: &str| socket(&Document::parse(Path::new("/etc/s/sidekey.toml"), text).expect("TOML"));
        assert_eq!(at(""), Path::new("/etc/s/data/admin.sock"));
        assert_eq!(at("[store]\ndirectory = '/var/s'\nkye = 1\n"), Path::new("/var/s/admin.sock"));
        assert_eq!(at("[store]\ndirectory = 'x'\n[admin]\nsocket = 'run/a'\n"), Path::new("/etc/s/run/a"));
        assert!(admin_socket(Path::new("/none")).is_err());
    }
}
