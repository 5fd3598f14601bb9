//! Clients of every kind against what a thief of the intermediate's key would make.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::issue::PrivateKey;
use super::*;
use crate::base::clock::SystemClock;
use crate::base::random::SystemRandom;
use crate::base::secret::SecretKey;
use crate::store::keyring::KeyRing;

const LISTED: &str = "api.provider.example";
const BELOW_SUFFIX: &str = "acme.shop.example";
/// What the authority was not made for.
const UNLISTED: [&str; 3] = ["api.bank.example", "provider.example", "evil-api.provider.example.org"];

struct Home {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
}

fn home() -> Home {
    let directory = tempfile::tempdir().expect("a directory");
    let ring = KeyRing::new(vec![SecretKey::new([7; 32])]).expect("a key");
    let authority = Authority::open(Parts {
        directory: directory.path().join("authority"),
        sealer: Sealer::new(ring, Arc::new(SystemRandom)),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        hosts: [LISTED.to_owned(), "*.shop.example".to_owned()].into(),
    });
    Home { directory, authority: authority.expect("opened") }
}

/// A leaf made with the intermediate's key, past everything that decides what is signed.
fn forged(generation: &Generation, name: SanType) -> (Vec<CertificateDer<'static>>, PrivateKey) {
    let mut intermediate = CertificateParams::default();
    intermediate.distinguished_name.push(DnType::CommonName, format!("Sidekey local intermediate {}", generation.id));
    intermediate.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "Sidekey");
    leaf.not_before = time::OffsetDateTime::from_unix_timestamp(generation.made_at.as_seconds()).expect("a time");
    leaf.not_after = leaf.not_before + time::Duration::days(1);
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.subject_alt_names = vec![name];
    let key = PrivateKey::generate().expect("a key");
    let signed = leaf.signed_by(&key, &Issuer::from_params(&intermediate, &generation.key)).expect("signed");
    (vec![signed.der().clone(), generation.intermediate.clone()], key)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a name"))
}

/// What a listed host gets comes from the authority; everything else is forged with its key.
struct Thief(Arc<Authority>);

impl std::fmt::Debug for Thief {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Thief")
    }
}

impl ResolvesServerCert for Thief {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().expect("a name").to_owned();
        if let Some(config) = self.0.server_config(&host) {
            return config.cert_resolver.resolve(hello);
        }
        let (chain, key) = forged(self.0.generations.load().last().expect("one"), dns(&host));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_pkcs8()));
        Some(Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&key).expect("a key"))))
    }
}

fn thief(authority: &Arc<Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("sound");
    Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(Thief(Arc::clone(authority)))))
}

/// Says `reached` to every client that trusts what it is shown.
fn serve(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut connection = ServerConnection::new(Arc::clone(&config)).expect("sound");
            // A client that refuses goes away in the middle.
            let mut said = || -> std::io::Result<()> {
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream)?;
                }
                connection.writer().write_all(b"reached")?;
                connection.send_close_notify();
                connection.complete_io(&mut stream).map(drop)
            };
            let _ = said();
        }
    });
    address
}

/// Runs a program and returns what it says, whether it succeeds or not.
fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).env_remove("JAVA_TOOL_OPTIONS").output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test (`make setup`): {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The chain that a server shows for a host, as rustls sees it, or why it is refused.
fn rustls_client(server: &Arc<ServerConfig>, roots: &str, host: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(bundle::certificates(roots).expect("PEM"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("sound");
    let config = Arc::new(config.with_root_certificates(trusted).with_no_client_auth());
    let name: ServerName<'static> = host.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(config, name).expect("sound");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("sound");
    let mut wire = Vec::new();
    while client.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("in memory");
        }
        server.read_tls(&mut wire.as_slice()).expect("in memory");
        server.process_new_packets().map_err(|error| error.to_string())?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("in memory");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("in memory");
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    Ok(client.peer_certificates().unwrap_or_default().to_vec())
}

/// `openssl verify` of a chain, as strict as it can be.
fn openssl_verify(home: &Home, host: &str, chain: &[CertificateDer<'_>]) -> (bool, String) {
    let file = |name: &str, content: &str| {
        let path = home.directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let root = file("root.pem", &home.authority.bundle());
    let leaf = file("leaf.pem", &bundle::pem(&chain[0]));
    let rest: String = chain[1..].iter().map(|certificate| bundle::pem(certificate)).collect();
    let rest = file("rest.pem", &rest);
    let name = if host.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
    let (root, leaf, rest) = (text(&root), text(&leaf), text(&rest));
    let trust = ["-CAfile", root, "-no-CApath", "-no-CAstore", "-untrusted", rest];
    run("openssl", &[&["verify", "-x509_strict", "-purpose", "sslserver", name, host], &trust[..], &[leaf]].concat())
}

/// F-10
#[test]
fn rustls_and_strict_openssl_accept_listed_hosts_only_whatever_is_signed() {
    let home = home();
    let (server, roots) = (thief(&home.authority), home.authority.bundle());
    for host in [LISTED, BELOW_SUFFIX] {
        let chain = rustls_client(&server, &roots, host).expect(host);
        assert_eq!(chain.len(), 2, "the intermediate is sent along");
        let (accepted, said) = openssl_verify(&home, host, &chain);
        assert!(accepted, "{host}: {said}");
    }
    for host in UNLISTED {
        let refused = rustls_client(&server, &roots, host).expect_err(host);
        assert!(refused.contains("NameConstraintViolation"), "{host}: {refused}");
        let (chain, _) = forged(home.authority.generations.load().last().expect("one"), dns(host));
        let (accepted, said) = openssl_verify(&home, host, &chain);
        assert!(!accepted && said.contains("permitted subtree violation"), "{host}: {said}");
    }
    let address = "192.0.2.1";
    let named = SanType::IpAddress(address.parse().expect("an address"));
    let (chain, _) = forged(home.authority.generations.load().last().expect("one"), named);
    let (accepted, said) = openssl_verify(&home, address, &chain);
    assert!(!accepted && said.contains("excluded subtree violation"), "{said}");
}

/// F-10: the intermediate cannot make another authority.
#[test]
fn an_authority_below_the_intermediate_is_refused() {
    let home = home();
    let generation = Arc::clone(home.authority.generations.load().last().expect("one"));
    let name = "Sidekey local intermediate";
    let mut below = CertificateParams::default();
    below.distinguished_name.push(DnType::CommonName, format!("{name} {}", generation.id));
    below.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(below.clone(), &generation.key);
    below.distinguished_name.push(DnType::CommonName, format!("{name} below"));
    below.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    below.use_authority_key_identifier_extension = true;
    let key = PrivateKey::generate().expect("a key");
    let certificate = below.signed_by(&key, &issuer).expect("signed").der().clone();
    let life = (generation.made_at, generation.not_after);
    let leaf = issue::leaf("below", &key, LISTED, &PrivateKey::generate().expect("a key"), life, &SystemRandom);
    let chain = [leaf.expect("signed"), certificate, generation.intermediate.clone()];
    let (accepted, said) = openssl_verify(&home, LISTED, &chain);
    assert!(!accepted && said.contains("path length constraint exceeded"), "{said}");
}

/// F-10: with the flags that Python 3.13 sets by itself.
#[test]
fn strict_python_accepts_listed_hosts_only() {
    let home = home();
    let roots = home.directory.path().join("roots.pem");
    std::fs::write(&roots, home.authority.bundle()).expect("written");
    let port = serve(thief(&home.authority)).port().to_string();
    let program = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
for host in sys.argv[3:]:
    try:
        with socket.create_connection(('127.0.0.1', int(sys.argv[2]))) as plain:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                print(host, tls.recv(100).decode())
    except ssl.SSLCertVerificationError as error:
        print(host, 'refused:', error.verify_message)
";
    let hosts = [&[LISTED, BELOW_SUFFIX], &UNLISTED[..]].concat();
    let (_, said) = run("python3", &[&["-c", program, text(&roots), &port], &hosts[..]].concat());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], [format!("{LISTED} reached"), format!("{BELOW_SUFFIX} reached")], "{said}");
    let refused = UNLISTED.map(|host| format!("{host} refused: permitted subtree violation"));
    assert_eq!(lines[2..], refused, "{said}");
}

/// F-10: Java does not look at the constraints of what it is told to trust, but at those of the intermediate.
#[test]
fn java_accepts_listed_hosts_only() {
    let home = home();
    let store = home.directory.path().join("trust.p12");
    std::fs::write(&store, bundle::java_trust_store(&home.authority.bundle()).expect("made")).expect("written");
    let port = serve(thief(&home.authority)).port().to_string();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/authority/TlsClient.java");
    let hosts = [&[LISTED, BELOW_SUFFIX], &UNLISTED[..]].concat();
    let (_, said) = run("java", &[&[text(&program), text(&store), &port], &hosts[..]].concat());
    for host in [LISTED, BELOW_SUFFIX] {
        assert!(said.contains(&format!("{host} reached")), "{said}");
    }
    for host in UNLISTED {
        let refused = said.lines().find(|line| line.starts_with(&format!("{host} refused: ")));
        assert!(refused.is_some_and(|line| line.contains("name constraints")), "{said}");
    }
}
