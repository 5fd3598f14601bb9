//! One running Sidekey: everything put together, its listeners, its start and its end.

mod compose;
mod listeners;
mod signals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::authority;
use crate::config::Settings;
use crate::telemetry::health::Part;

pub use compose::{DOCUMENT_LIMITS, Environment, World};
use listeners::Listeners;

/// Why the server does not start.
#[derive(Debug)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A server that has started.
pub struct Running {
    /// Where browsers and MCP clients reach it.
    pub public: SocketAddr,
    /// Where MCP servers reach it.
    pub egress: SocketAddr,
    /// Metrics and probes.
    pub metrics: SocketAddr,
    /// The admin socket.
    pub admin_socket: PathBuf,
    world: World,
    stop: watch::Sender<bool>,
    connections: TaskTracker,
    worker: tokio::task::JoinHandle<()>,
    housekeeper: tokio::task::JoinHandle<()>,
    probes: tokio::task::JoinHandle<()>,
    drain: Duration,
    exchange: Duration,
}

/// Opens the store and the listeners, and serves. Returns once requests are answered.
pub async fn start(settings: Settings, environment: Environment) -> Result<Running, StartError> {
    let drain = settings.timeouts.drain;
    // A whole exchange, and some time for the disk.
    let exchange = settings.timeouts.token + Duration::from_secs(5);
    let world = World::compose(&settings, environment).await?;
    world.check_keys(&settings.lost_keys).await?;
    let interrupted = world.vault.recover().await.map_err(|error| StartError(error.to_string()))?;
    let (stop, stopping) = watch::channel(false);
    let connections = TaskTracker::new();
    let listeners = Listeners::open(&settings)?;
    // Only one that can serve takes the place of another.
    world.vault.admit_store().await.map_err(|error| StartError(error.to_string()))?;
    let (public, metrics) = (listeners.public_address, listeners.metrics_address);
    let egress = listeners.egress_addresses[0];
    let probes = listeners.serve(&settings, &world, &stopping, &connections)?;
    let worker = tokio::spawn(Arc::clone(&world.vault).work());
    let keep_issuer = World::keep_issuer(Arc::clone(&world.issuer), world.clock());
    let keep_authority = authority::keep(Arc::clone(&world.authority));
    let revocations = Arc::clone(&world.dance).work_on_revocations();
    let housekeeper = tokio::spawn(async move {
        tokio::join!(keep_issuer, keep_authority, revocations);
    });
    world.health.well(Part::Store);
    world.health.well(Part::Listeners);
    info!(
        operation = "start", version = env!("CARGO_PKG_VERSION"), %public, %egress, %metrics,
        providers = settings.providers.len(), interrupted_refreshes = interrupted,
    );
    Ok(Running {
        public,
        egress,
        metrics,
        admin_socket: settings.admin_socket,
        world,
        stop,
        connections,
        worker,
        housekeeper,
        probes,
        drain,
        exchange,
    })
}

impl Running {
    /// Stops: no new connections, requests under way and refreshes under way are finished, as long as `timeouts.drain`
    /// allows.
    pub async fn stop(self) {
        info!(operation = "stop", "draining");
        self.world.health.unwell(Part::Running, "stopping");
        self.stop.send_replace(true);
        self.connections.close();
        self.worker.abort();
        self.housekeeper.abort();
        self.world.vault.stop();
        if tokio::time::timeout(self.drain, self.connections.wait()).await.is_err() {
            warn!(operation = "stop", open = self.connections.len(), "connections were still open when time was up");
        }
        // Last, since a request may have begun one, and with a time limit of its own: what a provider grants in an
        // exchange under way must reach the disk, or a rotated refresh token is lost.
        if tokio::time::timeout(self.exchange, self.world.vault.settled()).await.is_err() {
            error!(
                operation = "stop",
                under_way = self.world.vault.under_way(),
                "exchanges were cut off; they are in doubt"
            );
        }
        self.world.audit.close();
        self.probes.abort();
        // The port is free once the task has really ended.
        let _ = self.probes.await;
        let _ = std::fs::remove_file(&self.admin_socket);
        info!(operation = "stop", "stopped");
    }
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(settings: Settings, environment: Environment) -> Result<(), StartError> {
    run_until(settings, environment, || {}, std::future::pending()).await
}

/// Serves until SIGTERM or SIGINT, or until `over` is. `started` is called once requests are answered.
pub async fn run_until(
    settings: Settings,
    environment: Environment,
    started: impl FnOnce(),
    over: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let signals = signals::Signals::listen().map_err(|error| StartError(error.to_string()))?;
    let running = start(settings, environment).await?;
    started();
    tokio::select! {
        () = signals.wait_for_stop() => {}
        () = over => {}
    }
    running.stop().await;
    Ok(())
}
