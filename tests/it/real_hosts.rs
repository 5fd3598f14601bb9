//! A Sidekey whose providers are at their real host names: the simulator plays them all at one port, `egress.resolve`
//! leads there, and bundled entries are used as they are.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidekey::base::clock::{Clock, SystemClock};
use sidekey::base::files::create_private;
use sidekey::base::random::SystemRandom;
use sidekey::server::{self, Environment};
use sidekey::store::keyring::generate_key;
use sidekey_simulator::{Options, Profile, Simulator, host_names};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, http, read_answer, send};
use crate::world::{Files, Setup, World, free_address};

/// The providers that are registered, and the APIs that are enabled.
const PROVIDERS: [(&str, &str); 6] = [
    ("quickbooks", ""),
    ("github-oauth-app", ""),
    ("gitlab", ""),
    ("notion", ""),
    ("slack", ""),
    ("google", "apis = [\"calendar\", \"drive\"]\n"),
];

impl World {
    /// A world of real host names.
    pub async fn of_real_hosts(setup: Setup) -> Self {
        Self::of_real_hosts_at(setup, Arc::new(SystemClock)).await
    }

    /// The same, in a time of its own.
    pub async fn of_real_hosts_at(setup: Setup, clock: Arc<dyn Clock>) -> Self {
        let options = Options { hosts: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..Options::default() };
        let simulator = sidekey_simulator::start(options).await.expect("a simulator");
        let files = files(&simulator, &setup);
        let settings = files.settings();
        let environment = Environment { clock, ..Environment::system(&settings).expect("an environment") };
        let sidekey = server::start(settings, environment).await.expect("it starts");
        let client = browser(&simulator);
        Self { simulator, files, sidekey, client }
    }

    /// The certificates that clients of the egress listener are to trust.
    pub async fn authority(&self) -> String {
        let answer = send(http().get(self.egress("/.well-known/sidekey/ca.pem"))).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-pem-file"));
        answer.text()
    }

    /// A client that trusts the local authority and has the egress listener as its proxy, with this before the `@`.
    #[expect(clippy::disallowed_methods, reason = "a test is a client of Sidekey, not a part of it")]
    pub async fn proxied(&self, credential: &str) -> reqwest::Client {
        http(); // the TLS provider
        let proxy = reqwest::Proxy::all(format!("http://{credential}{}", self.files.egress)).expect("a proxy");
        let roots = reqwest::Certificate::from_pem_bundle(self.authority().await.as_bytes()).expect("certificates");
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).proxy(proxy);
        client.tls_certs_only(roots).build().expect("a client")
    }

    /// A tunnel, asked for with these lines; the answer to `CONNECT`, and the connection.
    pub async fn tunnel(&self, target: &str, headers: &str) -> (Answer, TcpStream) {
        let mut stream = TcpStream::connect(self.files.egress).await.expect("connected");
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_answer(&mut stream).await;
        (answer, stream)
    }

    /// TLS over a connection, trusting the local authority, with this name in the ClientHello.
    pub async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<S>> {
        let mut config = client_config(&self.authority().await);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// One request over a connection, and its answer.
    pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, head: &str) -> Answer {
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
        read_answer(stream).await
    }

    /// How many API calls a company has had.
    pub fn api_calls(&self, profile: &str) -> u64 {
        let counters = self.simulator.profile_counters(profile);
        // Once for each connection we ask ourselves whose it is; at this one it is the API that answers.
        let own = if profile == "github" { counters.code_exchanges_ok } else { 0 };
        counters.api_calls - own
    }
}

/// A client that trusts these certificates alone.
pub fn client_config(trusted: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(trusted.as_bytes()).map(|certificate| certificate.expect("PEM"));
    roots.add_parsable_certificates(certificates);
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A browser to which the companies are where their names say.
#[expect(clippy::disallowed_methods, reason = "a test is a client of Sidekey, not a part of it")]
pub fn browser(simulator: &Simulator) -> reqwest::Client {
    http(); // the TLS provider
    let authority = simulator.hosts_authority().expect("it plays hosts");
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    let mut client = client.tls_certs_merge([authority]);
    for host in host_names() {
        client = client.resolve(host, simulator.hosts_address().expect("it plays hosts"));
    }
    client.build().expect("a client")
}

pub fn files(simulator: &Simulator, setup: &Setup) -> Files {
    let home = tempfile::tempdir().expect("a directory");
    let [public, egress, metrics] = [free_address(), free_address(), free_address()];
    let address = simulator.hosts_address().expect("it plays hosts");
    let authority = simulator.hosts_authority().expect("it plays hosts");
    let led = setup.led.as_ref();
    let trusted = format!("{authority}{}", led.map_or("", |(_, _, trusted)| trusted));
    std::fs::write(home.path().join("companies.pem"), trusted).expect("written");
    let subject = setup.fixed_subject.map_or_else(String::new, |subject| format!("subject = \"{subject}\"\n"));
    let mut config = format!(
        "{}\n[public]\nlisten = \"{public}\"\n[metrics]\nlisten = \"{metrics}\"\n[store]\nkeys = [\"file:sidekey.key\"]\n\
         {}\n[egress]\nextra_ca = \"companies.pem\"\n{subject}{}\n",
        setup.top, setup.tables, setup.egress
    );
    if !setup.egress.contains("listen =") {
        config.push_str(&format!("listen = \"{egress}\"\n"));
    }
    config.push_str("[egress.resolve]\n");
    for host in host_names() {
        let address = led.filter(|(name, ..)| *name == host).map_or(address, |(_, address, _)| *address);
        config.push_str(&format!("\"{host}\" = \"{address}\"\n"));
    }
    for (name, lines) in PROVIDERS {
        let profile = if name == "github-oauth-app" { "github" } else { name };
        let settings = sidekey_simulator::Settings::of(Profile::from_name(profile).expect("a profile"));
        config.push_str(&format!(
            "[providers.{profile}]\nentry = \"{name}\"\nclient_id = \"{}\"\nclient_secret = \"file:{name}.secret\"\n{lines}",
            settings.client_id
        ));
        let secret = home.path().join(format!("{name}.secret"));
        create_private(&secret, settings.client_secret.as_bytes()).expect("written");
    }
    let path = home.path().join("sidekey.toml");
    create_private(&path, config.as_bytes()).expect("written");
    let key = generate_key(&SystemRandom);
    create_private(&home.path().join("sidekey.key"), key.expose().as_bytes()).expect("written");
    Files { home, config: path, public, egress, metrics }
}
