//! A running simulator, and its options.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::calls::ApiCall;
use crate::clock::sleep;
use crate::control;
use crate::faults::Fault;
use crate::hosts::Authority;
use crate::ledger::{Counters, IssuedValues, LedgerSnapshot, ProfileLedger};
use crate::profile::Profile;
use crate::rotation;
use crate::server::Server;
use crate::settings::Settings;
use crate::state::{Code, Shared};

/// Options of one simulator.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Default: a free port on 127.0.0.1.
    pub listen: SocketAddr,
    /// Serve HTTPS with this identity. Default: plain HTTP.
    pub tls: Option<TlsIdentity>,
    /// Also play the companies behind their real host names ([`host_names`](crate::host_names)), over HTTPS at this address.
    pub hosts: Option<SocketAddr>,
    /// Profiles whose a host is that several companies have; otherwise it is the first one's.
    pub preferred: Vec<String>,
    /// Settings other than [`Settings::of`], by profile name.
    pub settings: Vec<(String, Settings)>,
}

/// A server certificate and its key.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain, the server's own certificate first.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            hosts: None,
            preferred: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// A running simulator. Dropping it stops it as well.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
    serving: JoinHandle<()>,
    hosts: Option<ServedHosts>,
}

/// The companies behind their real host names.
struct ServedHosts {
    address: SocketAddr,
    authority_pem: String,
    serving: JoinHandle<()>,
}

/// Starts a simulator on the current Tokio runtime.
///
/// # Errors
/// When the address cannot be used, a profile does not exist or the certificate is no good.
pub async fn start(options: Options) -> io::Result<Simulator> {
    let mut initial = BTreeMap::new();
    for (name, settings) in options.settings {
        let profile = Profile::from_name(&name).ok_or_else(|| unknown_profile(&name))?;
        initial.insert(profile, settings);
    }
    let preferred = options.preferred.iter().map(|name| Profile::from_name(name).ok_or_else(|| unknown_profile(name)));
    let preferred: Arc<[Profile]> = preferred.collect::<io::Result<Vec<_>>>()?.into();
    let tls = options.tls.as_ref().map(acceptor).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = listen(options.listen)?;
    let address = listener.local_addr()?;
    let shared = Shared::new(initial);
    let hosts = match options.hosts {
        Some(address) => Some(serve_hosts(&shared, address, Arc::clone(&preferred)).await?),
        None => None,
    };
    let server = Server { shared: Arc::clone(&shared), tls, address, by_host: false, preferred };
    let serving = tokio::spawn(server.run(listener));
    Ok(Simulator { shared, address, scheme, serving, hosts })
}

/// With room for many that come at once: the usual 128 are few, and what finds no room may be reset.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn serve_hosts(shared: &Arc<Shared>, address: SocketAddr, preferred: Arc<[Profile]>) -> io::Result<ServedHosts> {
    let authority = Authority::new().map_err(io::Error::other)?;
    let listener = listen(address)?;
    let address = listener.local_addr()?;
    let tls = Some(TlsAcceptor::from(authority.serving));
    let server = Server { shared: Arc::clone(shared), tls, address, by_host: true, preferred };
    let serving = tokio::spawn(server.run(listener));
    Ok(ServedHosts { address, authority_pem: authority.certificate_pem, serving })
}

impl Simulator {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its root URL, e.g. `http://127.0.0.1:4000`; profiles are below.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where the companies are behind their real host names, if they are played.
    pub fn hosts_address(&self) -> Option<SocketAddr> {
        self.hosts.as_ref().map(|hosts| hosts.address)
    }

    /// The certificate of the authority behind those, in PEM.
    pub fn hosts_authority(&self) -> Option<&str> {
        self.hosts.as_ref().map(|hosts| hosts.authority_pem.as_str())
    }

    /// Everything that happened so far.
    pub fn ledger(&self) -> LedgerSnapshot {
        self.shared.lock().snapshot()
    }

    /// Every secret value that ever existed here, to search logs and stores for.
    pub fn issued_values(&self) -> IssuedValues {
        self.shared.lock().values.clone()
    }

    /// The last 100,000 calls to the APIs, oldest first.
    pub fn api_calls(&self) -> Vec<ApiCall> {
        self.shared.lock().calls.iter().cloned().collect()
    }

    /// The same, and forgets them: no call is ever in two answers, or in none.
    pub fn take_api_calls(&self) -> Vec<ApiCall> {
        self.shared.lock().calls.take()
    }

    /// What happened at one profile so far.
    ///
    /// # Panics
    /// When there is no such profile: a test's typing error.
    pub fn profile_ledger(&self, profile: &str) -> ProfileLedger {
        self.shared.lock().profile(named(profile)).ledger.clone()
    }

    /// Token requests that were read, and of which the ledger does not say yet what they came to: they take effect even
    /// if the client that sent them is gone.
    pub fn undecided_token_requests(&self) -> usize {
        self.shared.undecided_count()
    }

    /// Waits until all that was sent here by clients that are gone has come to its end: a client that was killed may have
    /// left a request behind that was not even read yet. Does not return while somebody keeps a connection open.
    ///
    /// # Errors
    /// When it cannot be reached anymore.
    pub async fn settled(&self) -> io::Result<()> {
        // Connections are accepted in the order in which they were made: once this one was, so were all before it.
        let mut last = TcpStream::connect(self.address).await?;
        last.shutdown().await?;
        last.read_to_end(&mut Vec::new()).await?;
        while self.shared.connection_count() > 0 || self.undecided_token_requests() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// How often what happened at one profile.
    ///
    /// # Panics
    /// When there is no such profile: a test's typing error.
    pub fn profile_counters(&self, profile: &str) -> Counters {
        self.shared.lock().profile(named(profile)).ledger.counters.clone()
    }

    /// How many token requests there were at the same time at most.
    pub fn most_token_requests_at_once(&self) -> usize {
        self.shared.most_undecided()
    }

    /// A grant of this user as if they had approved and the code had been exchanged: its access token, and its refresh token
    /// if there is one.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn issue_grant(&self, profile: &str, user: &str) -> (String, Option<String>) {
        let profile = named(profile);
        let mut state = self.shared.lock();
        let settings = state.settings(profile);
        let code = Code {
            client_id: settings.client_id,
            redirect_uri: String::new(),
            challenge: None,
            scope: String::new(),
            user_scope: String::new(),
            nonce: None,
            realm: settings.realm_id,
            user: user.to_owned(),
            offline: true,
            expires_at_ms: None,
            used: true,
        };
        let issued = rotation::open_grant(&mut state, profile, &code, None);
        (issued.access_token, issued.refresh_token.map(|(value, _)| value))
    }

    /// Forgets which calls there were.
    pub fn clear_api_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Changes a profile's settings. `change` must not call the simulator.
    ///
    /// # Panics
    /// When there is no such profile: a test's typing error.
    pub fn set(&self, profile: &str, change: impl FnOnce(&mut Settings)) {
        let profile = named(profile);
        let mut state = self.shared.lock();
        change(&mut state.profile(profile).settings);
        state.remember_secrets();
    }

    /// A profile's settings now.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn settings(&self, profile: &str) -> Settings {
        self.shared.lock().settings(named(profile))
    }

    /// Has calls go wrong from now on.
    ///
    /// # Panics
    /// When the fault names no profile or no final status.
    pub fn add_fault(&self, fault: Fault) {
        if let Err(reason) = fault.check() {
            panic!("{reason}");
        }
        self.shared.lock().faults.add(fault);
    }

    /// Has nothing go wrong from now on.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Lets all access tokens of a profile expire now. Returns how many.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn expire(&self, profile: &str) -> usize {
        control::expire(&self.shared, named(profile), None)
    }

    /// Lets one user's access tokens of a profile expire now. Returns how many.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn expire_user(&self, profile: &str, user: &str) -> usize {
        control::expire(&self.shared, named(profile), Some(user))
    }

    /// The user takes all consent back at the company. Returns how many grants died.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn revoke(&self, profile: &str) -> usize {
        control::revoke(&self.shared, named(profile))
    }

    /// Forgets grants, codes, counters, events, API calls and faults; settings are as at the start.
    /// Issued values stay known, for leak searches.
    pub fn reset(&self) {
        self.shared.lock().reset();
    }

    /// Stops: connections break, new ones are refused.
    pub async fn stop(mut self) {
        self.serving.abort();
        // Aborted on purpose; this waits until the port is free.
        let _ = (&mut self.serving).await;
        if let Some(hosts) = &mut self.hosts {
            hosts.serving.abort();
            let _ = (&mut hosts.serving).await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(hosts) = &self.hosts {
            hosts.serving.abort();
        }
    }
}

fn named(profile: &str) -> Profile {
    match Profile::from_name(profile) {
        Some(profile) => profile,
        None => panic!("the simulator has no profile {profile:?}"),
    }
}

fn unknown_profile(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("no profile {name:?}"))
}

fn acceptor(identity: &TlsIdentity) -> io::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
