//! A Sidekey with bundled entries, and the simulator behind the providers' real host names; servers and proxies that write
//! down what reaches them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sidekey::base::clock::{Clock, ManualClock};
use sidekey::base::files::create_private;
use sidekey::base::random::SystemRandom;
use sidekey::config::Settings;
use sidekey::server::{self, Environment, StartError};
use sidekey::store::keyring::generate_key;
use sidekey_simulator::{Options, Profile, Simulator, host_names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::client::{Answer, http, send};
use crate::world::{Files, World, free_address, now, pause};

/// How real names are reached.
pub struct Reach {
    /// Lines of `[egress]`.
    pub egress: String,
    /// Addresses by host; all hosts are resolved to the simulator where this is `None`.
    pub resolve: Option<Vec<(&'static str, SocketAddr)>>,
    /// What is trusted besides the simulator's authority, in PEM.
    pub trusted: String,
    /// Whether the simulator's authority is trusted.
    pub trusts_simulator: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { egress: String::new(), resolve: None, trusted: String::new(), trusts_simulator: true }
    }
}

/// A simulator that plays the real hosts.
pub async fn simulator() -> Simulator {
    let hosts = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    sidekey_simulator::start(Options { hosts, ..Options::default() }).await.expect("a simulator")
}

/// Files of a Sidekey that knows GitHub, QuickBooks and Slack from the bundled entries.
pub fn files(simulator: &Simulator, reach: &Reach) -> Files {
    let home = tempfile::tempdir().expect("a directory");
    let [public, egress, metrics] = [free_address(), free_address(), free_address()];
    let behind = simulator.hosts_address().expect("played");
    let everything = || host_names().into_iter().map(|host| (host, behind)).collect();
    let resolve: Vec<(&str, SocketAddr)> = reach.resolve.clone().unwrap_or_else(everything);
    let resolve: String = resolve.iter().map(|(host, address)| format!("\"{host}\" = \"{address}\"\n")).collect();
    let mut config = format!(
        "[public]\nlisten = \"{public}\"\n[metrics]\nlisten = \"{metrics}\"\n[store]\nkeys = [\"file:sidekey.key\"]\n\
         [egress]\nlisten = \"{egress}\"\nextra_ca = \"extra.pem\"\n{}\n[egress.resolve]\n{resolve}\n",
        reach.egress
    );
    for name in ["github", "quickbooks", "slack"] {
        let settings = sidekey_simulator::Settings::of(Profile::from_name(name).expect("a profile"));
        config.push_str(&format!(
            "[providers.{name}]\nclient_id = \"{}\"\nclient_secret = \"file:{name}.secret\"\n",
            settings.client_id
        ));
        create_private(&home.path().join(format!("{name}.secret")), settings.client_secret.as_bytes())
            .expect("written");
    }
    let trusted = if reach.trusts_simulator { simulator.hosts_authority().unwrap_or_default() } else { "" };
    // A file without any certificate would be a mistake of the operator's.
    let nobody = crate::process::certificates("nobody.example").authority;
    std::fs::write(home.path().join("extra.pem"), [trusted, &reach.trusted, &nobody].concat()).expect("written");
    let path = home.path().join("sidekey.toml");
    create_private(&path, config.as_bytes()).expect("written");
    create_private(&home.path().join("sidekey.key"), generate_key(&SystemRandom).expose().as_bytes()).expect("written");
    Files { home, config: path, public, egress, metrics }
}

/// A world in which providers are reached by their real names.
pub async fn world(reach: Reach) -> (World, ManualClock) {
    world_in(reach, Environment::system).await
}

/// The same, in another environment.
pub async fn world_in(
    reach: Reach,
    environment: impl FnOnce(&Settings) -> Result<Environment, StartError>,
) -> (World, ManualClock) {
    let simulator = simulator().await;
    let files = files(&simulator, &reach);
    let settings = files.settings();
    let clock = ManualClock::at(now());
    let environment = environment(&settings).expect("an environment");
    let environment = Environment { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..environment };
    let sidekey = server::start(settings, environment).await.expect("it starts");
    (World { simulator, files, sidekey, client: http() }, clock)
}

/// Connects as a browser would that finds the provider's page at the simulator's other port. What comes of it.
pub async fn connect(world: &World, provider: &str, subject: &str) -> Answer {
    let (to, cookie) = world.begin(provider, subject).await;
    let query = to.split_once('?').expect("a query").1;
    let page = format!("{}/{provider}/authorize?{query}", world.simulator.url());
    let agreed = send(world.client.get(page)).await;
    assert_eq!(agreed.status, 302, "{}", agreed.text());
    world.callback(agreed.header("location"), &cookie).await
}

/// Lets time pass while something is awaited: what was not sent is tried again after some seconds.
pub async fn while_time_passes<T>(clock: &ManualClock, awaited: impl Future<Output = T>) -> T {
    let mut awaited = std::pin::pin!(awaited);
    loop {
        tokio::select! {
            biased;
            done = &mut awaited => return done,
            () = pause(Duration::from_millis(20)) => clock.advance(Duration::from_secs(1)),
        }
    }
}

/// A subject that is connected, and a handle of it.
pub async fn connected(world: &World, provider: &str, subject: &str) -> String {
    let answer = connect(world, provider, subject).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    world.handle(subject).await.1
}

/// A proxy that opens tunnels to one place, whatever it is asked for.
pub struct ConnectProxy {
    pub address: SocketAddr,
    /// Where the tunnels lead.
    pub behind: Switch,
    state: Arc<ProxyState>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct ProxyState {
    /// The heads of all requests.
    asked: Mutex<Vec<String>>,
    /// What is sent instead of opening tunnels: a status, 1 for nonsense, 2 to hang up.
    refusal: AtomicU16,
    /// The first bytes of all tunnels.
    tunnelled: Mutex<Vec<u8>>,
    tunnels: Mutex<JoinSet<()>>,
}

/// Something that is no HTTP.
pub const NONSENSE: u16 = 1;
/// Nothing but the end of the connection.
pub const HANG_UP: u16 = 2;

impl ConnectProxy {
    pub async fn start(authorization: &'static str) -> Self {
        let behind = Switch::start().await;
        let target = behind.address;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(ProxyState::default());
        let serving = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let tunnel = tunnel(stream, target, authorization, Arc::clone(&state));
                    state.tunnels.lock().expect("sound").spawn(tunnel);
                }
            }
        });
        Self { address, behind, state, serving }
    }

    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().expect("sound").clone()
    }

    /// All that went through, as the proxy saw it.
    pub fn seen(&self) -> Vec<u8> {
        self.state.tunnelled.lock().expect("sound").clone()
    }

    /// Ends all tunnels, and opens no further one.
    pub async fn refuse(&self, with: u16) {
        self.state.refusal.store(with, Ordering::SeqCst);
        let mut tunnels = std::mem::take(&mut *self.state.tunnels.lock().expect("sound"));
        tunnels.shutdown().await;
    }

    pub fn allow(&self) {
        self.state.refusal.store(0, Ordering::SeqCst);
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn tunnel(mut stream: TcpStream, target: SocketAddr, authorization: &str, state: Arc<ProxyState>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let is_known = head.contains(&format!("\r\nProxy-Authorization: {authorization}\r\n"));
    state.asked.lock().expect("sound").push(head);
    let answer = match state.refusal.load(Ordering::SeqCst) {
        0 if is_known => "HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n".to_owned(),
        0 => "HTTP/1.1 407 Authenticate\r\nproxy-authenticate: Basic realm=\"x\"\r\ncontent-length: 2\r\n\r\nno"
            .to_owned(),
        NONSENSE => "220 smtp.example ESMTP\r\n\r\n".to_owned(),
        HANG_UP => return,
        status => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
    };
    if stream.write_all(answer.as_bytes()).await.is_err() || !answer.contains(" 200 ") {
        let _ = stream.shutdown().await;
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = stream.split();
    let (mut from_server, mut to_server) = upstream.split();
    let up = async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            state.tunnelled.lock().expect("sound").extend_from_slice(&buffer[..read]);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// An address that leads somewhere else when a test says so.
pub struct Switch {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    relays: Arc<Mutex<JoinSet<()>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Switch {
    /// Leads nowhere yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let target = Arc::new(Mutex::new(address));
        let relays = Arc::new(Mutex::new(JoinSet::new()));
        let serving = tokio::spawn({
            let (target, relays) = (Arc::clone(&target), Arc::clone(&relays));
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let target = *target.lock().expect("sound");
                    relays.lock().expect("sound").spawn(async move {
                        let Ok(mut upstream) = TcpStream::connect(target).await else { return };
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
                    });
                }
            }
        });
        Self { address, target, relays, serving }
    }

    /// Ends all connections; new ones lead to `target`.
    pub async fn to(&self, target: SocketAddr) {
        *self.target.lock().expect("sound") = target;
        let mut relays = std::mem::take(&mut *self.relays.lock().expect("sound"));
        relays.shutdown().await;
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A TLS server that shows a certificate, counts what it is sent, and answers every request with `{}`.
pub struct TlsServer {
    pub address: SocketAddr,
    received: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl TlsServer {
    pub async fn start(identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let acceptor = identity.acceptor();
        let (received, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let serving = tokio::spawn({
            let (received, accepted) = (Arc::clone(&received), Arc::clone(&accepted));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&received)));
                }
            }
        });
        Self { address, received, accepted, serving }
    }

    /// How many bytes came through TLS.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, received: Arc<AtomicUsize>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        received.fetch_add(read, Ordering::SeqCst);
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// A certificate chain and its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn acceptor(&self) -> TlsAcceptor {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a chain"), key)
            .expect("an identity");
        TlsAcceptor::from(Arc::new(config))
    }
}
