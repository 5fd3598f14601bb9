//! One running Sidekey: everything put together, its listeners, its start and its end.

mod applications;
mod compose;
mod environment;
mod file_work;
mod listeners;
mod liveness;
mod network;
mod reload;
mod signals;
mod stage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::base::file_mark::FileMark;
use crate::config::Settings;
use crate::portal::admin::Reloads;
use crate::telemetry::health::Part;

pub use compose::World;
pub use environment::{Environment, Variables};
use file_work::FileWork;
use listeners::Listeners;
pub use network::DOCUMENT_LIMITS;
use reload::Reloader;
use stage::Stage;

/// Why the server does not start.
#[derive(Debug)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Streams that are ended when time is up get this long to say so.
const LAST_WORD: Duration = Duration::from_millis(500);

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
    worlds: watch::Receiver<Arc<World>>,
    reloads: Arc<reload::Handle>,
    stop: watch::Sender<bool>,
    connections: TaskTracker,
    worker: tokio::task::JoinHandle<()>,
    reloader: tokio::task::JoinHandle<()>,
    probes: tokio::task::JoinHandle<()>,
}

/// Opens the store and the listeners, and serves. Returns once requests are answered.
pub async fn start(settings: Settings, environment: Environment) -> Result<Running, StartError> {
    let variables = Arc::clone(&environment.variables);
    let world = World::compose(&settings, environment).await?;
    world.check_keys(&settings.lost_keys).await?;
    world.check_isolation().await?;
    let interrupted = world.vault.recover().await.map_err(|error| StartError(error.to_string()))?;
    let (stop, stopping) = watch::channel(false);
    let connections = TaskTracker::new();
    let listeners = Listeners::open(&settings)?;
    // Only one that can serve takes the place of another.
    world.vault.admit_store().await.map_err(|error| StartError(error.to_string()))?;
    let (public, metrics) = (listeners.public_address, listeners.metrics_address);
    let egress = listeners.egress_addresses[0];
    world.reach_egress_at(egress);
    let (reloads, inbox) = reload::channel(&settings, world.clock().as_ref());
    let mark = FileMark::set(&settings.origin.file).ok();
    let stage = Stage::new(&settings, &world, listeners.addresses(), Arc::clone(&reloads) as Arc<dyn Reloads>)?;
    let probes = listeners.serve(&stage, world.probes(), &stopping, &connections);
    world.health.well(Part::Store);
    world.health.well(Part::Listeners);
    info!(
        operation = "start", version = env!("CARGO_PKG_VERSION"), %public, %egress, %metrics,
        providers = settings.providers.len(), interrupted_refreshes = interrupted,
    );
    let admin_socket = settings.admin_socket.clone();
    let (worlds, present) = watch::channel(Arc::new(world));
    let worker = tokio::spawn(work(present.clone()));
    let reloader =
        tokio::spawn(Reloader { settings, variables, worlds, stage, inbox, files: FileWork::default(), mark }.work());
    let worlds = present;
    Ok(Running { public, egress, metrics, admin_socket, worlds, reloads, stop, connections, worker, reloader, probes })
}

/// Has each world do what is to be done without anybody asking, until another one takes its place.
async fn work(mut worlds: watch::Receiver<Arc<World>>) {
    let mut working = JoinSet::new();
    loop {
        let world = Arc::clone(&worlds.borrow_and_update());
        working.spawn(world.work());
        if worlds.changed().await.is_err() {
            // Nothing changes anymore.
            while working.join_next().await.is_some() {}
            return;
        }
        while working.try_join_next().is_some() {}
    }
}

impl Running {
    /// Stops: no new connections, requests under way and refreshes under way are finished, as long as `timeouts.drain`
    /// allows.
    pub async fn stop(self) {
        info!(operation = "stop", "draining");
        self.reloader.abort();
        // Once it has really ended, the world is the last one.
        let _ = self.reloader.await;
        let world = Arc::clone(&self.worlds.borrow());
        let drain = world.timeouts().drain;
        // A whole exchange, and some time for the disk.
        let exchange = world.timeouts().token + compose::TIME_FOR_THE_DISK;
        world.health.unwell(Part::Running, "stopping");
        self.stop.send_replace(true);
        self.connections.close();
        world.end_streams();
        self.worker.abort();
        world.vault.stop();
        if tokio::time::timeout(drain, self.connections.wait()).await.is_err() {
            warn!(operation = "stop", open = self.connections.len(), "connections were still open when time was up");
            world.end_all_streams();
            let _ = tokio::time::timeout(LAST_WORD, self.connections.wait()).await;
        }
        if let Some(children) = &world.children {
            children.stop().await;
        }
        // Last, since a request may have begun one, and with a time limit of its own: what a provider grants in an
        // exchange under way must reach the disk, or a rotated refresh token is lost.
        if tokio::time::timeout(exchange, world.vault.settled()).await.is_err() {
            error!(
                operation = "stop",
                under_way = world.vault.under_way(),
                "exchanges were cut off; they are in doubt"
            );
        }
        world.audit.close();
        self.probes.abort();
        // The port is free once the task has really ended.
        let _ = self.probes.await;
        let _ = std::fs::remove_file(&self.admin_socket);
        info!(operation = "stop", "stopped");
    }

    /// Reads the settings again.
    pub fn reloads(&self) -> Arc<dyn Reloads> {
        Arc::clone(&self.reloads) as Arc<dyn Reloads>
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
    let reloads = running.reloads();
    tokio::select! {
        () = signals.wait_for_stop(async || drop(reloads.reload().await)) => {}
        () = over => {}
    }
    running.stop().await;
    Ok(())
}
