//! The companies behind their real host names: one HTTPS port, where the host says which company is meant and paths are
//! the company's own. Its certificates come from an authority that is made at the start; whoever is to believe them trusts
//! that one, and resolves the names to that port.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HOST;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::company::{Fit, fits};
use crate::profile::Profile;
use crate::server::Asked;

/// One host of a company.
#[derive(Clone, Debug)]
struct RealHost {
    /// Its name.
    name: &'static str,
    /// The company. A host that several companies have (two kinds of app at one provider, say) is there once for each.
    profile: Profile,
    /// What is at its paths: path (`*` stands for one segment), and the endpoint's name here.
    endpoints: Vec<(&'static str, &'static str)>,
    /// Whether all other paths are those of an API.
    api: bool,
}

/// The names of all hosts that are played.
pub fn host_names() -> BTreeSet<&'static str> {
    HOSTS.iter().map(|host| host.name).collect()
}

/// Every host that is played.
static HOSTS: LazyLock<Vec<RealHost>> = LazyLock::new(|| {
    let built_in = BUILT_IN.into_iter().map(|(name, profile, endpoints, api)| RealHost {
        name,
        profile,
        endpoints: endpoints.to_vec(),
        api,
    });
    let described = Profile::all().flat_map(|profile| {
        let hosts = profile.company().map(|company| company.hosts.iter()).unwrap_or_default();
        hosts.map(move |host| RealHost {
            name: &host.name,
            profile,
            endpoints: host.endpoints.iter().map(|(endpoint, path)| (path.as_str(), endpoint.as_str())).collect(),
            api: host.api,
        })
    });
    built_in.chain(described).collect()
});

/// Name, company, endpoints, and whether there is an API.
type Declared = (&'static str, Profile, &'static [(&'static str, &'static str)], bool);

const fn host(
    name: &'static str,
    profile: Profile,
    endpoints: &'static [(&'static str, &'static str)],
    api: bool,
) -> Declared {
    (name, profile, endpoints, api)
}

/// The hosts of companies with logic of their own.
const BUILT_IN: [Declared; 30] = [
    host("appcenter.intuit.com", Profile::Quickbooks, &[("/connect/oauth2", "authorize")], false),
    host(
        "oauth.platform.intuit.com",
        Profile::Quickbooks,
        &[("/oauth2/v1/tokens/bearer", "token"), ("/op/v1/jwks", "jwks.json")],
        false,
    ),
    host("developer.api.intuit.com", Profile::Quickbooks, &[("/v2/oauth2/tokens/revoke", "revoke")], false),
    host("accounts.platform.intuit.com", Profile::Quickbooks, &[("/v1/openid_connect/userinfo", "userinfo")], false),
    host(
        "sandbox-accounts.platform.intuit.com",
        Profile::Quickbooks,
        &[("/v1/openid_connect/userinfo", "userinfo")],
        false,
    ),
    host("quickbooks.api.intuit.com", Profile::Quickbooks, &[], true),
    host("sandbox-quickbooks.api.intuit.com", Profile::Quickbooks, &[], true),
    host(
        "github.com",
        Profile::Github,
        &[("/login/oauth/authorize", "authorize"), ("/login/oauth/access_token", "token")],
        true,
    ),
    host("api.github.com", Profile::Github, &[], true),
    host(
        "github.com",
        Profile::GithubOauthApp,
        &[("/login/oauth/authorize", "authorize"), ("/login/oauth/access_token", "token")],
        true,
    ),
    host("api.github.com", Profile::GithubOauthApp, &[], true),
    host("uploads.github.com", Profile::Github, &[], true),
    host(
        "gitlab.com",
        Profile::Gitlab,
        &[
            ("/oauth/authorize", "authorize"),
            ("/oauth/token", "token"),
            ("/oauth/revoke", "revoke"),
            ("/oauth/userinfo", "userinfo"),
            ("/oauth/discovery/keys", "jwks.json"),
        ],
        true,
    ),
    host(
        "accounts.google.com",
        Profile::Google,
        &[("/o/oauth2/v2/auth", "authorize"), ("/o/oauth2/auth", "authorize"), ("/o/oauth2/token", "token")],
        false,
    ),
    host("oauth2.googleapis.com", Profile::Google, &[("/token", "token"), ("/revoke", "revoke")], false),
    host("openidconnect.googleapis.com", Profile::Google, &[("/v1/userinfo", "userinfo")], false),
    host(
        "www.googleapis.com",
        Profile::Google,
        &[
            ("/oauth2/v3/certs", "jwks.json"),
            ("/oauth2/v4/token", "token"),
            ("/oauth2/v3/userinfo", "userinfo"),
            ("/oauth2/v2/userinfo", "userinfo"),
        ],
        true,
    ),
    host("gmail.googleapis.com", Profile::Google, &[], true),
    host("docs.googleapis.com", Profile::Google, &[], true),
    host("sheets.googleapis.com", Profile::Google, &[], true),
    host("drive.googleapis.com", Profile::Google, &[], true),
    host("people.googleapis.com", Profile::Google, &[], true),
    host(
        "login.microsoftonline.com",
        Profile::Microsoft,
        &[
            ("/*/oauth2/v2.0/authorize", "authorize"),
            ("/*/oauth2/v2.0/token", "token"),
            ("/*/discovery/v2.0/keys", "jwks.json"),
        ],
        false,
    ),
    host("graph.microsoft.com", Profile::Microsoft, &[("/oidc/userinfo", "userinfo")], true),
    host(
        "api.notion.com",
        Profile::Notion,
        &[("/v1/oauth/authorize", "authorize"), ("/v1/oauth/token", "token"), ("/v1/oauth/revoke", "revoke")],
        true,
    ),
    host(
        "slack.com",
        Profile::Slack,
        &[
            ("/oauth/v2/authorize", "authorize"),
            ("/api/oauth.v2.access", "token"),
            ("/api/oauth.v2.exchange", "token"),
            ("/api/auth.revoke", "revoke"),
        ],
        true,
    ),
    host("www.slack.com", Profile::Slack, &[], true),
    host("files.slack.com", Profile::Slack, &[], true),
    // The workspace's own.
    host("simulated.slack.com", Profile::Slack, &[], true),
    host(
        "generic.example",
        Profile::Generic,
        &[
            ("/authorize", "authorize"),
            ("/token", "token"),
            ("/revoke", "revoke"),
            ("/userinfo", "userinfo"),
            ("/jwks.json", "jwks.json"),
        ],
        true,
    ),
];

/// What a request to one of these hosts is for. Of several companies at one host it is the preferred one's.
pub(crate) fn asked(request: &Request<Incoming>, preferred: &[Profile]) -> Asked {
    let path = request.uri().path();
    let sent = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = sent.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let mut named = HOSTS.iter().filter(|host| host.name == name);
    let first = named.clone().next();
    let Some(host) = named.find(|host| preferred.contains(&host.profile)).or(first) else {
        return Asked::Misdirected;
    };
    let is_at = |pattern: &str| fits(pattern, path, |_, _| false) == Fit::Yes;
    match host.endpoints.iter().find(|(pattern, _)| is_at(pattern)) {
        Some((_, endpoint)) => Asked::Of(host.profile, (*endpoint).to_owned()),
        None if host.api => Asked::Of(host.profile, format!("api{path}")),
        None => Asked::Nothing,
    }
}

/// What the real company says in `iss`.
pub(crate) fn issuer(profile: Profile) -> Option<&'static str> {
    match profile {
        Profile::Quickbooks => Some("https://oauth.platform.intuit.com/op/v1"),
        Profile::Google => Some("https://accounts.google.com"),
        Profile::Gitlab => Some("https://gitlab.com"),
        Profile::Microsoft => Some("https://login.microsoftonline.com/common/v2.0"),
        Profile::Generic => Some("https://generic.example"),
        Profile::Github | Profile::GithubOauthApp | Profile::Notion | Profile::Slack => None,
        Profile::Described(_) => profile.company().and_then(|company| company.issuer.as_deref()),
    }
}

/// The authority, made at the start, and what its certificates are served with.
pub(crate) struct Authority {
    pub(crate) certificate_pem: String,
    pub(crate) serving: Arc<ServerConfig>,
}

impl Authority {
    /// One that makes a certificate for a host when it is first asked for.
    pub(crate) fn new() -> Result<Authority, Box<dyn std::error::Error + Send + Sync>> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "Sidekey's simulator");
        let key = KeyPair::generate()?;
        let certificate_pem = parameters.self_signed(&key)?.pem();
        let leaves = Leaves { issuer: Issuer::new(parameters, key), made: Mutex::default() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut serving = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaves));
        serving.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Authority { certificate_pem, serving: Arc::new(serving) })
    }
}

/// The certificates that were asked for.
struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    made: Mutex<HashMap<&'static str, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Leaves")
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name()?)
    }
}

impl Leaves {
    fn of(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = HOSTS.iter().find(|host| host.name.eq_ignore_ascii_case(name))?.name;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name) {
            return Some(Arc::clone(known));
        }
        let new = Arc::new(leaf(name, &self.issuer).ok()?);
        made.insert(name, Arc::clone(&new));
        Some(new)
    }
}

fn leaf(name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut parameters = CertificateParams::new([name.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_there_once_for_a_company() {
        for host in HOSTS.iter() {
            let same = |other: &&RealHost| (other.name, other.profile) == (host.name, host.profile);
            assert_eq!(HOSTS.iter().filter(same).count(), 1, "{}", host.name);
        }
    }
}
