//! The one outbound HTTP adapter of the control plane: token endpoints, revocation, look-ups.
//!
//! It never follows a redirect (a refresh token must not be sent again elsewhere), never repeats a request by itself,
//! opens a fresh connection for every exchange (so that a connection closed by the provider is never mistaken for a
//! lost reply), and caps what it reads.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::base::address::AllowedDestinations;
use crate::base::safe_url::SafeUrl;

/// A request to a provider. Its body may hold secrets, so it has no `Debug`.
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Where to.
    pub url: SafeUrl,
    /// All headers but `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Zeroizing<Vec<u8>>,
}

/// A complete reply. Its body may hold secrets, so it has no `Debug`.
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no complete reply. What matters is whether the provider may have acted on the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// Nothing of the request was sent: repeating it is harmless.
    NotSent(String),
    /// The request was (or may have been) sent, and no complete reply came back.
    Ambiguous(String),
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) => write!(formatter, "could not connect: {why}"),
            Self::Ambiguous(why) => write!(formatter, "no complete reply: {why}"),
        }
    }
}

/// Sends one request and returns the complete reply.
#[async_trait]
pub trait HttpClient: Send + Sync {
    /// One exchange, on a connection of its own.
    async fn send(&self, request: Request) -> Result<Response, HttpError>;
}

/// What the adapter is allowed to spend.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For name resolution, TCP and TLS.
    pub connect: Duration,
    /// For the whole exchange.
    pub total: Duration,
    /// The largest body that is read, in bytes.
    pub body: usize,
}

impl Default for Limits {
    /// 10 s, 60 s, 1 MiB. The whole exchange may take long on purpose: a reply that comes late may still hold the only
    /// copy of a rotated refresh token.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), total: Duration::from_secs(60), body: 1 << 20 }
    }
}

/// [`HttpClient`] over the network.
pub struct NetworkClient {
    client: reqwest::Client,
    limits: Limits,
    destinations: Option<AllowedDestinations>,
}

impl NetworkClient {
    /// A client that trusts the system's roots and `extra_roots`.
    pub fn new(limits: Limits, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        Self::build(limits, extra_roots, None)
    }

    /// A client for URLs that somebody else chose: it connects to `destinations` only, and to the very address that was
    /// found allowed, so that a name which changes its address meanwhile leads nowhere else.
    pub fn guarded(
        limits: Limits,
        extra_roots: &[CertificateDer<'static>],
        destinations: AllowedDestinations,
    ) -> Result<Self, String> {
        Self::build(limits, extra_roots, Some(destinations))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter that the others are to use")]
    fn build(
        limits: Limits,
        extra_roots: &[CertificateDer<'static>],
        destinations: Option<AllowedDestinations>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(extra_roots.iter().cloned());
        if roots.is_empty() {
            return Err("no root certificates on this machine; install the package `ca-certificates`".to_owned());
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut builder = reqwest::Client::builder();
        if let Some(destinations) = &destinations {
            builder = builder.dns_resolver(Arc::new(GuardedResolver(destinations.clone())));
        }
        let client = builder
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .http1_only()
            .no_proxy()
            .referer(false)
            .user_agent(concat!("sidekey/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, limits, destinations })
    }

    /// A host that is an address is never resolved, so it is judged here.
    fn check_literal(&self, url: &SafeUrl) -> Result<(), HttpError> {
        let address = match url.url().host() {
            Some(url::Host::Ipv4(address)) => std::net::IpAddr::from(address),
            Some(url::Host::Ipv6(address)) => std::net::IpAddr::from(address),
            _ => return Ok(()),
        };
        match &self.destinations {
            Some(destinations) if !destinations.allow(address) => Err(HttpError::NotSent(FORBIDDEN.to_owned())),
            _ => Ok(()),
        }
    }
}

const FORBIDDEN: &str = "the address is not one of the public Internet";

/// Names to addresses, but only to allowed ones: if any is forbidden, none is used.
struct GuardedResolver(AllowedDestinations);

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let destinations = self.0.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| !destinations.allow(address.ip())) {
                return Err(FORBIDDEN.into());
            }
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[async_trait]
impl HttpClient for NetworkClient {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        self.check_literal(&request.url)?;
        let mut reply = self
            .client
            .request(request.method, request.url.url().clone())
            .headers(request.headers)
            .body(request.body.to_vec())
            .send()
            .await
            .map_err(classify)?;
        let (status, headers) = (reply.status(), std::mem::take(reply.headers_mut()));
        let mut body = BytesMut::new();
        while let Some(chunk) = reply.chunk().await.map_err(classify)? {
            if body.len() + chunk.len() > self.limits.body {
                return Err(HttpError::Ambiguous(format!("the reply is larger than {} bytes", self.limits.body)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body: Zeroizing::new(body.to_vec()) })
    }
}

/// Only a failure to connect (which includes TLS) proves that nothing was sent. The URL is left out of the message: its
/// query may hold a secret.
fn classify(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    if error.is_connect() { HttpError::NotSent(why) } else { HttpError::Ambiguous(why) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn client() -> NetworkClient {
        let limits = Limits { connect: Duration::from_millis(300), total: Duration::from_millis(600), body: 64 };
        NetworkClient::new(limits, &[]).expect("a client")
    }

    fn get(port: u16) -> Request {
        let url = format!("http://127.0.0.1:{port}/x?secret=1").parse().expect("safe");
        Request { method: Method::GET, url, headers: HeaderMap::new(), body: Zeroizing::default() }
    }

    /// A server that answers every connection with `reply`, and then hangs up.
    async fn serve(reply: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(reply.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_complete_reply() {
        let port = serve("HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\nno").await;
        let reply = client().send(get(port)).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((reply.status.as_u16(), reply.body.as_slice()), (400, b"no".as_slice()));
    }

    #[tokio::test]
    async fn refused_connections_prove_that_nothing_was_sent() {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("bound").port();
        let error = client().send(get(port)).await.err().expect("refused");
        assert!(matches!(&error, HttpError::NotSent(why) if !why.contains("secret")), "{error}");
    }

    #[tokio::test]
    async fn cut_silent_and_oversized_replies_are_ambiguous() {
        let oversized = "HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n\
            00000000000000000000000000000000000000000000000000000000000000000";
        for reply in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", oversized] {
            let port = serve(reply).await;
            let error = client().send(get(port)).await.err().expect("no reply");
            assert!(matches!(&error, HttpError::Ambiguous(why) if !why.contains("secret")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_guarded_client_reaches_nothing_that_is_not_public() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let limits = Limits { connect: Duration::from_secs(1), total: Duration::from_secs(2), body: 64 };
        let guarded = NetworkClient::guarded(limits, &[], AllowedDestinations::default()).expect("a client");
        for host in
            ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
        {
            let url = format!("https://{host}:{port}/x").parse().expect("safe");
            let request = Request { method: Method::GET, url, headers: HeaderMap::new(), body: Zeroizing::default() };
            let error = guarded.send(request).await.err().expect("refused");
            assert!(matches!(&error, HttpError::NotSent(why) if why.contains(FORBIDDEN)), "{host}: {error}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "nobody may have connected");
        let allowed = AllowedDestinations(vec!["127.0.0.0/8".parse().expect("a network")]);
        let guarded = NetworkClient::guarded(limits, &[], allowed).expect("a client");
        let reply = guarded.send(get(serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await)).await;
        assert!(reply.is_ok(), "what the operator allows works");
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let target = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let redirect: &'static str =
            format!("HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:{target}/\r\ncontent-length: 0\r\n\r\n").leak();
        let reply = client().send(get(serve(redirect).await)).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reply.status.as_u16(), 307);
    }
}
