//! Where a running server is found, and nothing else of the configuration: for what is asked every few seconds, by whoever may
//! not read its secrets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::base::files;
use crate::base::toml_document::{Document, Problem};
use crate::config::file::ConfigFile;
use crate::config::reading::unreadable;

/// Where a running server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Metrics and probes; whoever does not need them does not mind that this is no address.
    pub metrics: Result<SocketAddr, Problem>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where connections and the audit trail are kept.
    pub store_directory: PathBuf,
}

/// Reads the file at `path`. What is wrong with it otherwise does not matter, not even that it is no TOML: an edit that went wrong must
/// not hide the server that runs. `sidekey check` finds that.
pub fn places(path: &Path) -> Result<Places, Vec<Problem>> {
    let text = files::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
    let document = Document::recovered(path, &text);
    let default = ConfigFile::default();
    let text_at = |table: &str, key: &str| document.value[table][key].as_str();
    let listen = text_at("metrics", "listen").unwrap_or(&default.metrics.listen);
    let metrics =
        listen.parse().map_err(|_| document.problem("metrics.listen", format!("{listen:?} is not an address")));
    let home = path.parent().unwrap_or(Path::new(""));
    let store_directory = match text_at("store", "directory") {
        Some(directory) => home.join(directory),
        None => home.join(&default.store.directory),
    };
    let admin_socket = match text_at("admin", "socket") {
        Some(socket) => home.join(socket),
        None => store_directory.join("admin.sock"),
    };
    Ok(Places { metrics, admin_socket, store_directory })
}

/// Where metrics and probes are answered unless the configuration says otherwise.
pub fn usual_metrics_address() -> SocketAddr {
    ConfigFile::default().metrics.listen.parse().expect("an address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Places, Vec<Problem>> {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("sidekey.toml");
        std::fs::write(&path, text).expect("written");
        let place = |path: PathBuf| path.strip_prefix(home.path()).unwrap_or(&path).to_owned();
        places(&path).map(|Places { metrics, admin_socket, store_directory }| {
            let (admin_socket, store_directory) = (place(admin_socket), place(store_directory));
            Places { metrics, admin_socket, store_directory }
        })
    }

    #[test]
    fn what_is_not_said_is_as_usual_and_the_rest_of_the_file_does_not_matter() {
        let usual = of("[store]\nkeys = [\"env:NONE\"]\n[providers.nobody]\n").expect("found");
        assert_eq!(usual.metrics.expect("an address").to_string(), "127.0.0.1:9464");
        assert_eq!((usual.admin_socket, usual.store_directory), ("data/admin.sock".into(), "data".into()));
        let said = "[metrics]\nlisten = \"10.0.0.1:1\"\n[admin]\nsocket = \"/run/s\"\n[store]\ndirectory = \"d\"\n";
        let said = of(said).expect("found");
        assert_eq!(said.metrics.expect("an address").to_string(), "10.0.0.1:1");
        assert_eq!((said.admin_socket, said.store_directory), ("/run/s".into(), "d".into()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let found = of("[metrics]\nlisten = \"here\"\n[store]\ndirectory = \"d\"\n").expect("the rest");
        assert_eq!(found.store_directory, Path::new("d"));
        let wrong = found.metrics.expect_err("no address").to_string();
        assert!(wrong.contains("metrics.listen: \"here\" is not an address"), "{wrong}");
        let said = "[metrics]\nlisten = \"10.0.0.1:1\"\n[store]\ndirectory = \"elsewhere\"\n";
        for wrong in
            ["[portal", "[portal]\nname = \"half", "a = = b\n", "garbage = = [\n", "[egress\nlisten = \"x\"\n", "}\n"]
        {
            for text in [format!("{said}{wrong}"), format!("{wrong}\n{said}")] {
                let found = of(&text).expect("what can be made out of it");
                assert_eq!(
                    (found.metrics, found.store_directory),
                    (Ok(([10, 0, 0, 1], 1).into()), "elsewhere".into()),
                    "{text}"
                );
            }
        }
        let none = places(Path::new("/nonexistent.toml")).expect_err("no file");
        assert!(none[0].to_string().contains("--config says where it is"), "{}", none[0]);
    }
}
