//! The four listeners. All are opened before any is served, so that a port that is taken ends the start.
//!
//! Pingora's applications run on an accept loop of ours: it ends at once when told to, and connections are counted, so
//! that a stop takes as long as the requests under way and no longer.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::StartError;
use super::stage::Stage;
use crate::base::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::portal::admin::Addresses;
use crate::proxy::Connection;

/// A TLS client must be through with its handshake in this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The open listeners.
pub struct Listeners {
    public: TcpListener,
    egress: Vec<TcpListener>,
    metrics: TcpListener,
    admin: UnixListener,
    /// Address of the public listener.
    pub public_address: SocketAddr,
    /// Addresses of the egress listener.
    pub egress_addresses: Vec<SocketAddr>,
    /// Address of the metrics listener.
    pub metrics_address: SocketAddr,
}

impl Listeners {
    /// Opens all four.
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let (public, public_address) = bind("public.listen", settings.public.listen)?;
        let egress: Result<Vec<_>, StartError> =
            settings.egress.listen.iter().map(|address| bind("egress.listen", *address)).collect();
        let (egress, egress_addresses): (Vec<_>, Vec<_>) = egress?.into_iter().unzip();
        let (metrics, metrics_address) = bind("metrics.listen", settings.metrics_listen)?;
        let admin = bind_admin(&settings.admin_socket)?;
        Ok(Self { public, egress, metrics, admin, public_address, egress_addresses, metrics_address })
    }

    /// Where they listen.
    pub fn addresses(&self) -> Addresses {
        let (public, metrics) = (self.public_address, self.metrics_address);
        Addresses { public, egress: self.egress_addresses.clone(), metrics }
    }

    /// Serves all four with whatever is on the stage until `stopping` says so; metrics and probes are answered until the task
    /// is aborted.
    pub fn serve(
        self,
        stage: &Arc<Stage>,
        probes: Router,
        stopping: &watch::Receiver<bool>,
        connections: &TaskTracker,
    ) -> tokio::task::JoinHandle<()> {
        let public = Application::Public(Arc::clone(stage));
        tokio::spawn(accept(self.public, public, stopping.clone(), connections.clone()));
        for listener in self.egress {
            let application = Application::Egress(Arc::clone(stage));
            tokio::spawn(accept(listener, application, stopping.clone(), connections.clone()));
        }
        let ended = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let admin = axum::serve(self.admin, stage.admin()).with_graceful_shutdown(ended(stopping.clone()));
        connections.spawn(async move { admin.await });
        let probes = axum::serve(self.metrics, probes);
        tokio::spawn(async move {
            let _ = probes.await;
        })
    }
}

/// Connections that wait to be accepted; `net.core.somaxconn` may say less.
const MOST_WAITING: i32 = 4096;

fn bind(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error: std::io::Error| StartError(format!("{key}: cannot listen on {address}: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    // The standard library asks for 128, which a moment of many new connections fills: then some are reset.
    rustix::net::listen(&listener, MOST_WAITING).map_err(|error| failed(error.into()))?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn bind_admin(path: &Path) -> Result<UnixListener, StartError> {
    let failed =
        |error: std::io::Error| StartError(format!("admin.socket: cannot listen on {}: {error}", path.display()));
    remove_dead_socket(path).map_err(failed)?;
    // The process runs with umask 077, so nobody else can connect before the mode is set either.
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Removes a socket that nobody listens on; refuses to remove anything else.
fn remove_dead_socket(path: &Path) -> std::io::Result<()> {
    let refused = |why: &str| std::io::Error::new(std::io::ErrorKind::AddrInUse, why.to_owned());
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(refused("there is something else; name another path")),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(refused("another process listens there; give each its own admin.socket"))
        }
        Ok(_) => std::fs::remove_file(path),
    }
}

/// What serves the connections of a listener.
#[derive(Clone)]
enum Application {
    Public(Arc<Stage>),
    Egress(Arc<Stage>),
}

impl Application {
    async fn serve(&self, stream: TcpStream, stopping: &watch::Receiver<bool>) {
        match self {
            Self::Public(stage) => {
                if let Some(stream) = secured(stream, stage.tls().as_ref().as_ref()).await {
                    Arc::clone(stage.public()).process_new(stream, stopping).await;
                }
            }
            Self::Egress(stage) => stage.front().serve(stream, stopping).await,
        }
    }

    async fn clean_up(&self) {
        match self {
            Self::Public(stage) => ServerApp::cleanup(stage.public().as_ref()).await,
            Self::Egress(stage) => {
                for egress in stage.egress() {
                    ServerApp::cleanup(egress.as_ref()).await;
                }
            }
        }
    }
}

/// Accepts connections until told to stop, then lets the application end those that are idle.
async fn accept(
    listener: TcpListener,
    application: Application,
    mut stopping: watch::Receiver<bool>,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let (application, stopping) = (application.clone(), stopping.clone());
                connections.spawn(async move { application.serve(stream, &stopping).await });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only spin.
                warn!(operation = "accept", %error);
                SystemClock.sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    application.clean_up().await;
}

async fn secured(stream: TcpStream, tls: Option<&Acceptor>) -> Option<Stream> {
    let stream = Connection::new(stream);
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, tls.tls_handshake(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            debug!(operation = "tls_handshake", error = %error.etype().as_str());
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_connections_at_once_wait_for_their_turn() {
        let (listener, address) = bind("test", ([127, 0, 0, 1], 0).into()).expect("bound");
        let connect = || std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(800));
        let waiting: Vec<_> = (0..300).map(|_| connect()).collect();
        assert!(waiting.iter().all(Result::is_ok), "{:?}", waiting.iter().find(|one| one.is_err()));
        drop(listener);
    }
}
