//! The same over TLS, including a reset under a reply.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sidekey_simulator::{Endpoint, Fault, FaultKind, Options, Simulator, TlsIdentity, start};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Answer, exchange};

async fn get(simulator: &Simulator, trusted: &str, target: &str) -> std::io::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(simulator.address()).await?;
    let name = ServerName::try_from("simulator.test").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    Ok(exchange(stream, "GET", target, &[], b"").await)
}

fn identity() -> TlsIdentity {
    let certified = rcgen::generate_simple_self_signed(vec!["simulator.test".to_owned()]).unwrap();
    TlsIdentity { certificate_pem: certified.cert.pem(), key_pem: certified.signing_key.serialize_pem() }
}

#[tokio::test]
async fn tls_with_the_given_certificate() {
    let given = identity();
    let options = Options { tls: Some(given.clone()), ..Options::default() };
    let simulator = start(options).await.unwrap();
    assert!(simulator.url().starts_with("https://127.0.0.1:"));
    let trusted = given.certificate_pem.as_str();
    let answer = get(&simulator, trusted, "/control/health").await.unwrap();
    assert_eq!(answer.json()["ok"], true);
    assert!(get(&simulator, &identity().certificate_pem, "/control/health").await.is_err());
    // An authorization answers with https URLs.
    simulator.set("generic", |settings| settings.send_iss = true);
    let target = "/generic/authorize?response_type=code&client_id=generic-client-id&redirect_uri=http://127.0.0.1:9/";
    let answer = get(&simulator, trusted, target).await.unwrap();
    assert_eq!(answer.redirected("iss").as_deref(), Some("https://simulator.test/generic"));
    simulator.add_fault(Fault::new("generic", Endpoint::Authorize, FaultKind::CommitThenReset));
    let answer = get(&simulator, trusted, target).await.unwrap();
    assert!(answer.was_reset(), "{answer:?}");
}

#[tokio::test]
async fn a_bad_identity_is_an_error() {
    let bad = TlsIdentity { certificate_pem: "nonsense".to_owned(), key_pem: "nonsense".to_owned() };
    assert!(start(Options { tls: Some(bad), ..Options::default() }).await.is_err());
}
