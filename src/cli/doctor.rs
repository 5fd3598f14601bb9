//! `sidekey doctor`: looks at everything that a Sidekey needs, in the order in which it needs it, and changes nothing.

mod reach;
mod servers;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CliError, CommonArguments, admin_client, load, say};
use crate::config::Settings;
use crate::server::{Environment, World};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `config`, `store`, `keys`, `servers`, `reach`, `clock`.
    check: &'static str,
    /// How it is.
    outcome: Outcome,
    /// What was found.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something does not work.
    Fail,
}

impl Check {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Ok, detail: detail.into(), next_step: None }
    }

    fn note(check: &'static str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { check, outcome: Outcome::Note, detail: detail.into(), next_step: Some(next_step.to_owned()) }
    }

    fn fail(check: &'static str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { check, outcome: Outcome::Fail, detail: detail.into(), next_step: Some(next_step.to_owned()) }
    }
}

/// Looks, says what it found, and fails if something does not work.
pub fn run(arguments: &CommonArguments) -> Result<(), CliError> {
    let config = &arguments.config.config;
    let (checks, settings) = match load(config) {
        Ok(settings) => (vec![configuration(config, &settings)], Some(settings)),
        Err(CliError::Config(problems)) => {
            let fail = |problem: &crate::base::toml_document::Problem| {
                Check::fail("config", problem.to_string(), "mend it; the rest cannot be looked at until then")
            };
            (problems.iter().map(fail).collect(), None)
        }
        Err(error) => return Err(error),
    };
    let mut checks = checks;
    if let Some(settings) = &settings {
        checks.extend(store_and_keys(config, settings));
        checks.extend(servers::look(settings));
        checks.extend(super::runtime(1)?.block_on(reach::look(settings)));
    }
    report(&checks, arguments.json);
    let failed = checks.iter().filter(|check| check.outcome == Outcome::Fail).count();
    match (failed, settings.is_some()) {
        (0, _) => Ok(()),
        // In JSON the checks say it all.
        (_, is_read) if arguments.json => Err(CliError::Said(if is_read { 1 } else { 2 })),
        (1, true) => Err(CliError::Failed("1 thing does not work".to_owned())),
        (_, true) => Err(CliError::Failed(format!("{failed} things do not work"))),
        (_, false) => Err(CliError::Usage("the configuration is wrong".to_owned())),
    }
}

fn report(checks: &[Check], json: bool) {
    if json {
        let well = checks.iter().all(|check| check.outcome != Outcome::Fail);
        say(&json!({ "well": well, "checks": checks }).to_string());
        return;
    }
    for check in checks {
        let word = match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Fail => "FAIL",
        };
        say(&format!("{word:<5} {:<7} {}", check.check, check.detail));
        if let Some(next_step) = &check.next_step {
            say(&format!("{:14}-> {next_step}", ""));
        }
    }
}

fn configuration(config: &Path, settings: &Settings) -> Check {
    let (providers, servers) = (settings.providers.len(), settings.issuer.servers.len());
    let count = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let detail = format!("{}: {}, {}", config.display(), count(providers, "provider"), count(servers, "MCP server"));
    if providers == 0 {
        return Check::note("config", detail, "add a [providers.NAME] table; `sidekey providers list` shows the names");
    }
    Check::ok("config", detail)
}

/// Asks the server that runs, or opens the store as a server would.
fn store_and_keys(config: &Path, settings: &Settings) -> Vec<Check> {
    let directory = settings.store_directory.display();
    let served = UnixStream::connect(&settings.admin_socket).is_ok();
    let status = match admin_client::ask(config, Method::GET, "/v1/status", None::<&()>) {
        Ok(status) => status,
        Err(error) => {
            let next_step = "`sidekey serve` would end for the same reason; docs/troubleshooting.md explains each";
            return vec![Check::fail("store", format!("{directory}: {error}"), next_step)];
        }
    };
    let mut checks = vec![store(&directory.to_string(), served, &status)];
    checks.extend(status["held_back"].as_str().map(|why| {
        Check::fail("store", why, "`sidekey store confirm` says that this is the right one, once you are sure")
    }));
    checks.extend(in_need(&status));
    let key_count = settings.keys.ids().count();
    // A server that runs has all that it needs: it would not have started otherwise.
    let missing = if served { Ok(Missing::default()) } else { missing(settings) };
    let (keys, isolation) = match missing {
        Ok(Missing { keys, isolation }) => (keys, isolation),
        Err(error) => (Some(error.to_string()), None),
    };
    checks.push(match keys {
        None => Check::ok("keys", format!("{key_count} in use or ready; every stored value can be opened")),
        Some(why) => Check::fail("keys", why, "put the key back, or give it up as the message says"),
    });
    checks.extend(
        isolation
            .map(|why| Check::fail("servers", why, "docs/bridge.md says what keeping them apart needs of a system")),
    );
    checks
}

fn store(directory: &str, served: bool, status: &Value) -> Check {
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
    let failed = |error: crate::server::StartError| CliError::Failed(error.to_string());
    super::runtime(1)?.block_on(async {
        let environment = Environment::system(settings).map_err(failed)?;
        let world = World::compose(settings, environment).await.map_err(failed)?;
        let why = |done: Result<(), crate::server::StartError>| done.err().map(|error| error.to_string());
        let keys = why(world.check_keys(&settings.lost_keys).await);
        Ok(Missing { keys, isolation: why(world.check_isolation().await) })
    })
}

/// Clocks that differ by more than this make tokens and links look expired, or not yet valid.
const TOLERATED_SKEW: Duration = Duration::from_secs(60);

/// What the hosts that answered say about our clock: how many seconds each is ahead of us.
fn clock(mut ahead: Vec<i64>) -> Check {
    ahead.sort_unstable();
    // One host may be wrong itself; the one in the middle hardly is.
    let Some(skew) = ahead.get(ahead.len() / 2).copied() else {
        return Check::note("clock", "no host said what time it is", "compare it with `date -u`");
    };
    let (seconds, count) = (skew.unsigned_abs(), ahead.len());
    let hosts = format!("{count} host{}", if count == 1 { "" } else { "s" });
    if seconds <= TOLERATED_SKEW.as_secs() {
        return Check::ok("clock", format!("within a minute of {hosts}"));
    }
    let words = if skew > 0 { "behind" } else { "ahead of" };
    let skew = humantime::format_duration(Duration::from_secs(seconds));
    let next_step = "set it, and keep it set (chrony, systemd-timesyncd): tokens and links are judged by it";
    Check::fail("clock", format!("{skew} {words} {hosts}"), next_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_compared_with_most() {
        assert_eq!(clock(vec![]).outcome, Outcome::Note);
        assert_eq!(clock(vec![0, 1, 5_000]), Check::ok("clock", "within a minute of 3 hosts"));
        assert_eq!(clock(vec![90]).detail, "1m 30s behind 1 host");
        let ahead = clock(vec![-3600, -3601, 2]);
        assert_eq!((ahead.outcome, ahead.detail.as_str()), (Outcome::Fail, "1h ahead of 3 hosts"));
    }
}
