//! What the operating system tells us.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// The signals that mean something.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts listening.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Returns on SIGTERM or SIGINT. SIGHUP is kept for reloading the configuration; until then it changes nothing.
    pub async fn wait_for_stop(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => info!(operation = "reload", outcome = "ignored", "restart to apply changes"),
            }
        }
    }
}
