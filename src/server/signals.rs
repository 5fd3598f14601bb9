//! What the operating system tells us.

use tokio::signal::unix::{Signal, SignalKind, signal};

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

    /// Returns on SIGTERM or SIGINT, even while what SIGHUP asks for is being done.
    pub async fn wait_for_stop(mut self, hung_up: impl AsyncFn()) {
        let mut hang_up = self.hang_up;
        let reload = async {
            while hang_up.recv().await.is_some() {
                hung_up().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = reload => {}
        }
    }
}
