//! The four listeners. All are opened before any is served, so that a port that is taken ends the start.
//!
//! Pingora's applications run on an accept loop of ours: it ends at once when told to, and connections are counted, so
//! that a stop takes as long as the requests under way and no longer.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::proxy::{HttpProxy, ProxyHttp, http_proxy};
use pingora::server::configuration::ServerConf;
use rustix::fs::{MemfdFlags, memfd_create};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{StartError, World};
use crate::base::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::config::settings::Tls;
use crate::portal::admin::Addresses;
use crate::proxy::Connection;
use crate::proxy::egress::Egress;
use crate::proxy::intercept::Front;
use crate::proxy::public::Public;

/// A connection of HTTP/2 may be silent for so long, as one of HTTP/1.1 is allowed by Pingora.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// A TLS client must be through with its handshake in this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The open listeners.
pub struct Listeners {
    public: TcpListener,
    egress: Vec<TcpListener>,
    metrics: TcpListener,
    admin: UnixListener,
    tls: Option<Arc<Acceptor>>,
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
        let tls = settings.public.tls.as_ref().map(acceptor).transpose()?.map(Arc::new);
        let (public, public_address) = bind("public.listen", settings.public.listen)?;
        let egress: Result<Vec<_>, StartError> =
            settings.egress.listen.iter().map(|address| bind("egress.listen", *address)).collect();
        let (egress, egress_addresses): (Vec<_>, Vec<_>) = egress?.into_iter().unzip();
        let (metrics, metrics_address) = bind("metrics.listen", settings.metrics_listen)?;
        let admin = bind_admin(&settings.admin_socket)?;
        Ok(Self { public, egress, metrics, admin, tls, public_address, egress_addresses, metrics_address })
    }

    /// Serves all four until `stopping` says so; metrics and probes are answered until the task is aborted.
    pub fn serve(
        self,
        settings: &Settings,
        world: &World,
        stopping: &watch::Receiver<bool>,
        connections: &TaskTracker,
    ) -> Result<tokio::task::JoinHandle<()>, StartError> {
        let roots = RootsFile::new(world.outbound().roots().pem())
            .map_err(|error| StartError(format!("the root certificates: {error}")))?;
        let egress_conf = ServerConf { ca_file: Some(roots.path()), ..server_conf(settings) };
        let public = Arc::new(proxy(server_conf(settings), world.public(settings)));
        let (egress, tunnels) = world.egress(settings);
        let egress = Arc::new(proxy(egress_conf, egress));
        let front = Arc::new(Front::new(Arc::clone(&egress), Arc::new(tunnels), Arc::clone(&world.authority)));
        let (public_address, metrics) = (self.public_address, self.metrics_address);
        let listens = Addresses { public: public_address, egress: self.egress_addresses, metrics };
        let public = Application::Public(public, self.tls);
        tokio::spawn(accept(self.public, public, stopping.clone(), connections.clone()));
        for listener in self.egress {
            let application = Application::Egress(Arc::clone(&egress), Arc::clone(&front));
            tokio::spawn(accept(listener, application, stopping.clone(), connections.clone()));
        }
        let ended = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let admin = axum::serve(self.admin, world.admin(settings, Some(listens)))
            .with_graceful_shutdown(ended(stopping.clone()));
        connections.spawn(async move { admin.await });
        let probes = axum::serve(self.metrics, world.probes());
        Ok(tokio::spawn(async move {
            let _ = probes.await;
        }))
    }
}

fn bind(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error: std::io::Error| StartError(format!("{key}: cannot listen on {address}: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
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

/// Pingora takes root certificates from a file only, and reads it when a proxy is made. This one is in memory.
struct RootsFile(std::fs::File);

impl RootsFile {
    fn new(pem: &str) -> std::io::Result<Self> {
        let mut file = std::fs::File::from(memfd_create("sidekey-roots", MemfdFlags::CLOEXEC)?);
        file.write_all(pem.as_bytes())?;
        Ok(Self(file))
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// Pingora reads its configuration from YAML if it is let; ours comes from our settings alone.
fn server_conf(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: settings.threads,
        upstream_keepalive_pool_size: 1024,
        max_retries: 4,
        ..ServerConf::default()
    }
}

/// Silent connections end, whichever version of HTTP they speak: Pingora by itself grants one of HTTP/2 eternity.
fn proxy<P: ProxyHttp>(conf: ServerConf, application: P) -> HttpProxy<P> {
    let mut proxy = http_proxy(&Arc::new(conf), application);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(IDLE_DEADLINE);
    proxy.server_options = Some(options);
    proxy
}

fn acceptor(tls: &Tls) -> Result<Acceptor, StartError> {
    let failed = |what: &str| StartError(format!("public.tls: {what}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(tls.certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| failed(&format!("the certificate is not readable PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.expose().as_bytes())
        .map_err(|_| failed("the key is not a private key in PEM"))?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| failed(&error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptor::from_server_config(Arc::new(config)))
}

/// What serves the connections of a listener.
#[derive(Clone)]
enum Application {
    Public(Arc<HttpProxy<Public>>, Option<Arc<Acceptor>>),
    Egress(Arc<HttpProxy<Egress>>, Arc<Front>),
}

impl Application {
    async fn serve(&self, stream: TcpStream, stopping: &watch::Receiver<bool>) {
        match self {
            Self::Public(public, tls) => {
                if let Some(stream) = secured(stream, tls.as_deref()).await {
                    public.process_new(stream, stopping).await;
                }
            }
            Self::Egress(_, front) => front.serve(stream, stopping).await,
        }
    }

    async fn clean_up(&self) {
        match self {
            Self::Public(public, _) => ServerApp::cleanup(public.as_ref()).await,
            Self::Egress(egress, _) => ServerApp::cleanup(egress.as_ref()).await,
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
