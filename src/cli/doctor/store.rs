//! The store and the keys: of the server that runs, or as a server would find them.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use http::Method;
use rustix::fs::Access;
use serde_json::Value;

use super::Check;
use crate::base::files;
use crate::cli::{CliError, admin_client, runtime};
use crate::config::Settings;
use crate::server::{Environment, StartError, World};

/// Asks the server that runs, or opens the store as a server would.
pub fn look(config: &Path, settings: &Settings) -> Vec<Check> {
    let directory = settings.store_directory.display();
    let served = UnixStream::connect(&settings.admin_socket).is_ok();
    if !served && !is_in_use(&settings.store_directory) {
        return match admin_client::is_nobodys(config, &settings.admin_socket) {
            Ok(()) => before_the_first_start(settings),
            Err(error) => vec![Check::fail("store", error.to_string(), "until then commands reach nothing")],
        };
    }
    let status = match admin_client::ask(config, Method::GET, "/v1/status", None::<&()>) {
        Ok(status) => status,
        Err(error) => {
            let next_step = "`sidekey serve` would end for the same reason; docs/troubleshooting.md explains each";
            return vec![Check::fail("store", format!("{directory}: {error}"), next_step)];
        }
    };
    let mut checks = vec![of_store(&directory.to_string(), served, &status)];
    checks.extend(status["held_back"].as_str().map(|why| {
        Check::fail("store", why, "`sidekey store confirm` says that this is the right one, once you are sure")
    }));
    checks.extend(in_need(&status));
    // A server that runs has all that it needs: it would not have started otherwise.
    let missing = if served { Ok(Missing::default()) } else { missing(settings) };
    checks.extend(keys_and_isolation(settings, missing, "every stored value can be opened"));
    checks
}

/// Whether anything is there that a server would go on with, or would refuse.
fn is_in_use(directory: &Path) -> bool {
    match std::fs::read_dir(directory) {
        Ok(mut files) => files.next().is_some(),
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Nothing is made, and the server's user may be another one: what a server needs is tried out elsewhere.
fn before_the_first_start(settings: &Settings) -> Vec<Check> {
    let directory = &settings.store_directory;
    let shown = directory.display();
    let store = match writable(directory) {
        Ok(()) => Check::ok("store", format!("{shown}: nothing is there yet; the server begins it when it starts")),
        Err(why) => Check::fail("store", format!("{shown}: {why}"), "let the server's user write there"),
    };
    let Ok(elsewhere) = tempfile::tempdir() else {
        let why = "there is no temporary directory in which to try out what a server needs";
        return vec![store, Check::note("keys", why, "set TMPDIR to a directory that can be written")];
    };
    let directory = elsewhere.path().join("store");
    let missing = missing(&Settings { store_directory: directory, store_sentinel: None, ..settings.clone() });
    std::iter::once(store).chain(keys_and_isolation(settings, missing, "nothing is stored yet")).collect()
}

/// Whether this user could make the directory, or files in it.
fn writable(directory: &Path) -> Result<(), String> {
    let nearest = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if directory.exists() {
        files::private_directory(directory).map_err(|error| error.to_string())?;
    }
    if !nearest.is_dir() {
        return Err(format!("{} is not a directory", nearest.display()));
    }
    let access = rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK);
    access.map_err(|error| format!("nothing can be made in {}: {error}", nearest.display()))
}

fn keys_and_isolation(settings: &Settings, missing: Result<Missing, CliError>, stored: &str) -> Vec<Check> {
    let (keys, isolation) = match missing {
        Ok(Missing { keys, isolation }) => (keys, isolation),
        Err(error) => (Some(error.to_string()), None),
    };
    let keys = match keys {
        None => Check::ok("keys", format!("{} in use or ready; {stored}", settings.keys.ids().count())),
        Some(why) => Check::fail("keys", why, "put the key back, or give it up as the message says"),
    };
    let apart = |why| Check::fail("servers", why, "docs/bridge.md says what keeping them apart needs of a system");
    std::iter::once(keys).chain(isolation.map(apart)).collect()
}

fn of_store(directory: &str, served: bool, status: &Value) -> Check {
    let count = status["connections"].as_array().map_or(0, Vec::len);
    let connections = format!("{count} connection{}", if count == 1 { "" } else { "s" });
    let troubles = status["server"]["troubles"].as_object().into_iter().flatten();
    let troubles: Vec<String> =
        troubles.map(|(part, why)| format!("{part}: {}", why.as_str().unwrap_or_default())).collect();
    if !troubles.is_empty() {
        let detail = format!("{directory}: the server that runs is not well: {}", troubles.join("; "));
        return Check::fail("store", detail, "its log says more; docs/troubleshooting.md explains each");
    }
    match (served, status["version"].as_str()) {
        (true, Some(version)) if version != env!("CARGO_PKG_VERSION") => Check::note(
            "store",
            format!("{directory}: {connections}; the server that runs is version {version}"),
            "restart it, so that it is the version of this program",
        ),
        (true, _) => Check::ok("store", format!("{directory}: {connections}; a server runs")),
        (false, _) => Check::ok("store", format!("{directory}: {connections}; no server runs")),
    }
}

/// Connections that only a person can mend.
fn in_need(status: &Value) -> Option<Check> {
    let connections = status["connections"].as_array()?;
    let is_in_need =
        |connection: &&Value| connection["state"] == "needs_reauth" || connection["trouble"]["needs_operator"] == true;
    let in_need = connections.iter().filter(is_in_need).count();
    let detail = format!("{in_need} connection{} attention", if in_need == 1 { " needs" } else { "s need" });
    (in_need > 0).then(|| Check::note("store", detail, "`sidekey status` says which, and why"))
}

/// What a server would not start without.
#[derive(Default)]
struct Missing {
    keys: Option<String>,
    /// Why child processes cannot be kept apart.
    isolation: Option<String>,
}

fn missing(settings: &Settings) -> Result<Missing, CliError> {
    let failed = |error: StartError| CliError::Failed(error.to_string());
    runtime(1)?.block_on(async {
        let environment = Environment::system(settings).map_err(failed)?;
        let world = World::compose(settings, environment).await.map_err(failed)?;
        let why = |done: Result<(), StartError>| done.err().map(|error| error.to_string());
        let keys = why(world.check_keys(&settings.lost_keys).await);
        Ok(Missing { keys, isolation: why(world.check_isolation().await) })
    })
}
