//! `sidekey doctor`: looks at everything that a Sidekey needs, in the order in which it needs it, and changes nothing.

mod reach;
mod servers;
mod store;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::{CliError, CommonArguments, load, say};
use crate::config::Settings;

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
        checks.extend(store::look(config, settings));
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
