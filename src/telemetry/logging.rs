//! Log lines: JSON or text, on standard error.
//!
//! Fields with fixed names carry the facts: `operation`, `provider`, `subject`, `duration_ms`, `outcome`. Never logged:
//! tokens, codes, states, keys, handles, query strings.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Changes the level of the lines that are written.
type Change = Box<dyn Fn(EnvFilter) + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// Starts logging. `level` is one of tracing's words; it applies to Sidekey. Libraries are heard at `warn`, and with
/// `trace` at `trace`, but for Pingora: its finer lines hold whole requests, with code, cookie and token.
pub fn start(json: bool, level: &str) {
    let filter = filter(level);
    // A line that cannot be written (the disk that it goes to is full) is lost. Complaining about it in the same place
    // would be a panic.
    let builder = fmt().log_internal_errors(false);
    let builder = builder.with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (several servers in one test process) keeps the first.
    if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = CHANGE.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = CHANGE.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    }
}

/// From here on at this level.
pub fn set_level(level: &str) {
    if let Some(change) = CHANGE.get() {
        change(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    if level == "trace" {
        EnvFilter::new("trace,pingora=info")
    } else {
        EnvFilter::new(format!("warn,sidekey={level}"))
    }
}
