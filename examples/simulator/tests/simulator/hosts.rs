//! The companies behind their real host names.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidekey_simulator::{Options, Simulator, host_names, start};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Answer, exchange};
use crate::user::{REDIRECT, form, tokens};

async fn simulator() -> Simulator {
    start(Options { hosts: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..Options::default() }).await.unwrap()
}

async fn call(
    simulator: &Simulator,
    sni: &'static str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut roots = RootCertStore::empty();
    let trusted = simulator.hosts_authority().unwrap();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(simulator.hosts_address().unwrap()).await.unwrap();
    let name = ServerName::try_from(sni).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let mut headers = headers.to_vec();
    if !headers.iter().any(|(name, _)| *name == "host") {
        headers.push(("host", sni));
    }
    exchange(stream, method, target, &headers, body.as_bytes()).await
}

#[tokio::test]
async fn every_host_proves_who_it_is() {
    let simulator = simulator().await;
    for host in host_names() {
        let answer = call(&simulator, host, "GET", "/nothing-is-here", &[], "").await;
        assert!(matches!(answer.status, Some(200 | 400 | 401 | 403 | 404)), "{host} {answer:?}");
    }
}

#[tokio::test]
async fn a_company_under_its_own_names_and_paths() {
    let simulator = simulator().await;
    let settings = simulator.settings("quickbooks");
    let target = format!(
        "/connect/oauth2?response_type=code&client_id={}&redirect_uri={REDIRECT}&state=s&scope=openid",
        settings.client_id
    );
    let agreed = call(&simulator, "appcenter.intuit.com", "GET", &target, &[], "").await;
    let code = agreed.redirected("code").unwrap();
    let body = form(&[
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("client_id", &settings.client_id),
        ("client_secret", &settings.client_secret),
    ]);
    let form_encoded = [("content-type", "application/x-www-form-urlencoded")];
    let path = "/oauth2/v1/tokens/bearer";
    let answer = call(&simulator, "oauth.platform.intuit.com", "POST", path, &form_encoded, &body).await;
    let held = tokens(&answer);
    let bearer = format!("Bearer {}", held.access);
    let authorized = [("authorization", bearer.as_str())];
    let path = format!("/v3/company/{}/companyinfo/1", settings.realm_id);
    let answer = call(&simulator, "quickbooks.api.intuit.com", "GET", &path, &authorized, "").await;
    assert_eq!(answer.json()["CompanyInfo"]["Id"], settings.realm_id);
    let path = "/v1/openid_connect/userinfo";
    let answer = call(&simulator, "accounts.platform.intuit.com", "GET", path, &authorized, "").await;
    assert_eq!(answer.json()["sub"], "user-1");
    assert_eq!(simulator.ledger().profile("quickbooks").grants.len(), 1, "both ports have one ledger");
}

#[tokio::test]
async fn links_lead_to_the_host_that_was_called() {
    let simulator = simulator().await;
    let (access, _) = simulator.issue_grant("github", "ada");
    let bearer = format!("Bearer {access}");
    let target = "/user/repos?per_page=1";
    let answer =
        call(&simulator, "api.github.com", "GET", target, &[("authorization", &bearer), ("user-agent", "test")], "")
            .await;
    assert!(answer.header("link").contains("<https://api.github.com/user/repos?page=2"), "{answer:?}");
    assert_eq!(answer.json()[0]["url"], "https://api.github.com/repos/ada/repository-1");
}

#[tokio::test]
async fn the_host_decides_and_nothing_else_is_there() {
    let simulator = simulator().await;
    let foreign = [("host", "evil.example")];
    assert_eq!(call(&simulator, "api.github.com", "GET", "/user", &foreign, "").await.status, Some(421));
    assert_eq!(call(&simulator, "oauth2.googleapis.com", "GET", "/control/tokens", &[], "").await.status, Some(404));
    assert_eq!(call(&simulator, "oauth2.googleapis.com", "GET", "/google/authorize", &[], "").await.status, Some(404));
}

/// GitHub and Notion serve nobody who does not say who they are, or which version they speak.
#[tokio::test]
async fn headers_that_everybody_must_send() {
    let simulator = simulator().await;
    for (profile, host, target, header, status) in [
        ("github", "api.github.com", "/user", ("user-agent", "test"), 403),
        ("notion", "api.notion.com", "/v1/users/me", ("notion-version", "2025-09-03"), 400),
    ] {
        let bearer = format!("Bearer {}", simulator.issue_grant(profile, "ada").0);
        let authorized = ("authorization", bearer.as_str());
        assert_eq!(call(&simulator, host, "GET", target, &[authorized], "").await.status, Some(status), "{host}");
        assert_eq!(call(&simulator, host, "GET", target, &[authorized, header], "").await.status, Some(200), "{host}");
    }
}

/// One host, and two kinds of app with tokens of their own.
#[tokio::test]
async fn a_host_of_two_companies_is_the_preferred_ones() {
    let hosts = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let preferred = vec!["github-oauth-app".to_owned()];
    let simulator = start(Options { hosts, preferred, ..Options::default() }).await.unwrap();
    for (profile, status) in [("github-oauth-app", 200), ("github", 401)] {
        let bearer = format!("Bearer {}", simulator.issue_grant(profile, "ada").0);
        let headers = [("authorization", bearer.as_str()), ("user-agent", "test")];
        let answer = call(&simulator, "api.github.com", "GET", "/user", &headers, "").await;
        assert_eq!(answer.status, Some(status), "{profile}");
    }
}
