//! `sidekey serve`

use std::path::Path;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::Runtime;

use super::{CliError, ConfigArgument, load, runtime};
use crate::config::Settings;
use crate::config::file::LogFormat;
use crate::launch::confined::OURSELVES;
use crate::launch::{directory, surroundings};
use crate::server::{self, Environment};
use crate::telemetry::{access, logging};

/// So long threads may go on that are still at work when everything has been stopped.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Serves until SIGTERM.
pub fn run(argument: &ConfigArgument) -> Result<(), CliError> {
    let settings = load(&argument.config)?;
    prepare(&settings);
    let runtime = runtime(settings.threads)?;
    remove_abandoned_directories(&settings);
    let failed = |error: server::StartError| CliError::Failed(error.to_string());
    let environment = Environment::system(&settings).map_err(failed)?;
    to_the_end(runtime, server::run(settings, environment)).map_err(failed)
}

/// Does the work, and then waits no longer for threads that read files than what is written needs: a volume that does not
/// answer must not keep the process alive.
pub fn to_the_end<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WRITES);
    done
}

/// Nobody waits for it: there may be much in them.
fn remove_abandoned_directories(settings: &Settings) {
    let places = [std::env::temp_dir(), settings.store_directory.join(surroundings::SIBLINGS)];
    std::thread::spawn(move || {
        for place in places {
            directory::remove_abandoned(&place, Path::new(OURSELVES));
        }
    });
}

/// What every process that holds tokens does first.
pub fn prepare(settings: &Settings) {
    logging::start(settings.log_format == LogFormat::Json, settings.log_level.word());
    access::want(settings.access_log);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::stopwatch::Stopwatch;

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process() {
        let (release, never) = std::sync::mpsc::channel::<()>();
        let (hangs, is_hanging) = tokio::sync::oneshot::channel();
        let runtime = super::super::runtime(1).ok().expect("threads");
        let stopwatch = Stopwatch::start();
        let done = to_the_end(runtime, async {
            tokio::task::spawn_blocking(move || {
                let _ = hangs.send(());
                never.recv()
            });
            is_hanging.await.expect("it runs");
            "done"
        });
        assert_eq!(done, "done");
        assert!(stopwatch.elapsed() < LAST_WRITES * 3, "{:?}", stopwatch.elapsed());
        drop(release);
    }
}
