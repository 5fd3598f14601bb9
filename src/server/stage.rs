//! What the listeners serve with. All of it is replaced together when the settings change; what is being served goes on with
//! what it began with.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::Acceptor;
use pingora::proxy::{HttpProxy, ProxyHttp, http_proxy};
use pingora::server::configuration::ServerConf;
use rustix::fs::{MemfdFlags, memfd_create};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower::ServiceExt;

use super::{StartError, World};
use crate::base::live::Live;
use crate::config::Settings;
use crate::config::settings::Tls;
use crate::portal::admin::{Addresses, Reloads};
use crate::proxy::Current;
use crate::proxy::egress::Egress;
use crate::proxy::intercept::Front;
use crate::proxy::public::Public;

/// A connection of HTTP/2 may be silent for so long, as one of HTTP/1.1 is allowed by Pingora.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);

type EgressProxy = HttpProxy<Current<Egress>>;

/// What the listeners serve with.
pub struct Stage {
    threads: usize,
    listens: Addresses,
    reloads: Arc<dyn Reloads>,
    /// Pingora's own state and its connections to MCP servers.
    public_proxy: Arc<HttpProxy<Current<Public>>>,
    public: Live<Public>,
    tls: Live<Option<Acceptor>>,
    egress: Live<Egress>,
    front: Live<Front>,
    admin: Live<Router>,
    trust: Mutex<Trust>,
}

/// What the servers of providers are judged by, and who does. Pingora reads it once.
struct Trust {
    roots: String,
    proxy: Arc<EgressProxy>,
    /// Those before, as long as they have connections.
    former: Vec<Weak<EgressProxy>>,
}

/// All that is to be served with next. Making it may fail; putting it on the stage cannot.
pub struct Next {
    public: Public,
    tls: Option<Acceptor>,
    egress: Egress,
    front: Front,
    admin: Router,
    roots: String,
    proxy: Arc<EgressProxy>,
}

impl Stage {
    /// With this to begin with.
    pub fn new(
        settings: &Settings,
        world: &World,
        listens: Addresses,
        reloads: Arc<dyn Reloads>,
    ) -> Result<Arc<Self>, StartError> {
        let threads = settings.threads;
        let public = Live::new(Arc::new(world.public(settings)));
        let public_proxy = Arc::new(proxy(server_conf(threads), Current::new(public.clone())));
        let tls = settings.public.tls.as_ref().map(acceptor).transpose()?;
        let (egress, tunnels) = world.egress(settings);
        let egress = Live::new(Arc::new(egress));
        let roots = world.outbound().roots().pem().to_owned();
        let proxy = egress_proxy(threads, &roots, &egress)?;
        let front = Front::new(Arc::clone(&proxy), Arc::new(tunnels), Arc::clone(&world.authority));
        let admin = world.admin(settings, Some(listens.clone()), Some(Arc::clone(&reloads)));
        Ok(Arc::new(Self {
            threads,
            listens,
            reloads,
            public_proxy,
            public,
            tls: Live::new(Arc::new(tls)),
            egress,
            front: Live::new(Arc::new(front)),
            admin: Live::new(Arc::new(admin)),
            trust: Mutex::new(Trust { roots, proxy, former: Vec::new() }),
        }))
    }

    /// Makes all that is to be served with next.
    pub fn prepare(&self, settings: &Settings, world: &World) -> Result<Next, StartError> {
        let tls = settings.public.tls.as_ref().map(acceptor).transpose()?;
        let (egress, tunnels) = world.egress(settings);
        let roots = world.outbound().roots().pem().to_owned();
        let proxy = match self.proxy_trusting(&roots) {
            Some(proxy) => proxy,
            None => egress_proxy(self.threads, &roots, &self.egress)?,
        };
        Ok(Next {
            public: world.public(settings),
            tls,
            egress,
            front: Front::new(Arc::clone(&proxy), Arc::new(tunnels), Arc::clone(&world.authority)),
            admin: world.admin(settings, Some(self.listens.clone()), Some(Arc::clone(&self.reloads))),
            roots,
            proxy,
        })
    }

    /// From here on this is served with.
    pub fn show(&self, next: Next) {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&trust.proxy, &next.proxy) {
            let before = Arc::downgrade(&trust.proxy);
            trust.former.push(before);
            trust.former.retain(|proxy| proxy.strong_count() > 0);
            (trust.proxy, trust.roots) = (next.proxy, next.roots);
        }
        self.egress.replace(Arc::new(next.egress));
        self.front.replace(Arc::new(next.front));
        self.public.replace(Arc::new(next.public));
        self.tls.replace(Arc::new(next.tls));
        self.admin.replace(Arc::new(next.admin));
    }

    fn proxy_trusting(&self, roots: &str) -> Option<Arc<EgressProxy>> {
        let trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        (trust.roots == roots).then(|| Arc::clone(&trust.proxy))
    }

    /// For connections of the public listener.
    pub fn public(&self) -> &Arc<HttpProxy<Current<Public>>> {
        &self.public_proxy
    }

    /// How the next TLS connection of the public listener begins, if with TLS.
    pub fn tls(&self) -> Arc<Option<Acceptor>> {
        self.tls.snapshot()
    }

    /// For the next connection of the egress listener.
    pub fn front(&self) -> Arc<Front> {
        self.front.snapshot()
    }

    /// All that serve connections of the egress listener.
    pub fn egress(&self) -> Vec<Arc<EgressProxy>> {
        let trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        trust.former.iter().filter_map(Weak::upgrade).chain([Arc::clone(&trust.proxy)]).collect()
    }

    /// The admin socket's routes: each request goes to those that are current.
    pub fn admin(&self) -> Router {
        let admin = self.admin.clone();
        Router::new().fallback(move |request: Request| Router::clone(&admin.snapshot()).oneshot(request))
    }
}

fn egress_proxy(threads: usize, roots: &str, egress: &Live<Egress>) -> Result<Arc<EgressProxy>, StartError> {
    let roots = RootsFile::new(roots).map_err(|error| StartError(format!("the root certificates: {error}")))?;
    let conf = ServerConf { ca_file: Some(roots.path()), ..server_conf(threads) };
    Ok(Arc::new(proxy(conf, Current::new(egress.clone()))))
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
fn server_conf(threads: usize) -> ServerConf {
    ServerConf { threads, upstream_keepalive_pool_size: 1024, max_retries: 4, ..ServerConf::default() }
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
