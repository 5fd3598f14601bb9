//! Log lines: JSON or text, on standard error.
//!
//! Fields with fixed names carry the facts: `operation`, `provider`, `subject`, `duration_ms`, `outcome`. Never logged:
//! tokens, codes, states, keys, handles, query strings.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts logging. `level` is one of tracing's words; it applies to Sidekey. Libraries are heard at `warn`, and with
/// `trace` at `trace`, but for Pingora: its finer lines hold whole requests, with code, cookie and token.
pub fn start(json: bool, level: &str) {
    let filter = filter(level);
    // A line that cannot be written (the disk that it goes to is full) is lost. Complaining about it in the same place
    // would be a panic.
    let builder = fmt().log_internal_errors(false);
    let builder = builder.with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (several servers in one test process) keeps the first.
    let _ =
        if json { builder.json().flatten_event(true).with_current_span(false).try_init() } else { builder.try_init() };
}

fn filter(level: &str) -> EnvFilter {
    if level == "trace" {
        EnvFilter::new("trace,pingora=info")
    } else {
        EnvFilter::new(format!("warn,sidekey={level}"))
    }
}
