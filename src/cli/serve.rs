//! `sidekey serve`

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::{CliError, ConfigArgument, load, runtime};
use crate::config::Settings;
use crate::config::file::{LogFormat, LogLevel};
use crate::server::{self, Environment};
use crate::telemetry::logging;

/// Serves until SIGTERM.
pub fn run(argument: &ConfigArgument) -> Result<(), CliError> {
    let settings = load(&argument.config)?;
    prepare(&settings);
    let runtime = runtime(settings.threads)?;
    let failed = |error: server::StartError| CliError::Failed(error.to_string());
    let environment = Environment::system(&settings).map_err(failed)?;
    runtime.block_on(server::run(settings, environment)).map_err(failed)
}

/// What every process that holds tokens does first.
pub fn prepare(settings: &Settings) {
    logging::start(settings.log_format == LogFormat::Json, level(settings.log_level));
    keep_memory_private();
    // The message of a panic may hold what it was about: only the place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(operation = "panic", place, "a defect; one connection or task has ended");
    }));
}

/// No core dumps, no debugger of another process: memory holds tokens.
fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = limited {
        tracing::warn!(operation = "start", %error, "memory cannot be kept from core dumps");
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
