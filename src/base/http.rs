//! The one outbound HTTP adapter of the control plane: token endpoints, revocation, look-ups.
//!
//! It never follows a redirect (a refresh token must not be sent again elsewhere), never repeats a request by itself,
//! opens a fresh connection for every exchange (so that a connection closed by the provider is never mistaken for a
//! lost reply), and caps what it reads.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use crate::base::address::AllowedDestinations;
use crate::base::outbound::{Outbound, Way, roots};
use crate::base::resolver;
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
    limits: Limits,
    reach: Reach,
    tls: OnceLock<TlsConnector>,
}

/// What a client may connect to.
enum Reach {
    /// Providers, along the ways that lead to them.
    Providers(Arc<Outbound>),
    /// Hosts that somebody else chose, at allowed addresses.
    Guarded { destinations: AllowedDestinations, roots: RootCertStore },
}

impl NetworkClient {
    /// A client for providers.
    pub fn new(limits: Limits, outbound: Arc<Outbound>) -> Self {
        Self { limits, reach: Reach::Providers(outbound), tls: OnceLock::new() }
    }

    /// A client for URLs that somebody else chose: it connects to `destinations` only, and to the very address that was
    /// found allowed, so that a name which changes its address meanwhile leads nowhere else. It trusts the system's roots
    /// and `extra_roots`.
    pub fn guarded(
        limits: Limits,
        extra_roots: &[CertificateDer<'static>],
        destinations: AllowedDestinations,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(roots::of_system());
        roots.add_parsable_certificates(extra_roots.iter().cloned());
        if roots.is_empty() {
            return Err("no root certificates on this machine; install the package `ca-certificates`".to_owned());
        }
        Ok(Self { limits, reach: Reach::Guarded { destinations, roots }, tls: OnceLock::new() })
    }

    /// A fresh connection, ready for a request.
    async fn connect(&self, url: &SafeUrl) -> Result<Box<dyn Connection>, String> {
        let way = match &self.reach {
            Reach::Providers(outbound) => outbound.way_to(url).await.map_err(|error| error.to_string())?,
            Reach::Guarded { destinations, .. } => Way::Direct(allowed(url, destinations).await?),
        };
        let stream = way.open(self.limits.connect).await?;
        if !url.is_https() {
            return Ok(Box::new(stream));
        }
        let host = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = self.tls()?.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(stream))
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let roots = match &self.reach {
            Reach::Providers(outbound) => outbound.root_store(),
            Reach::Guarded { roots, .. } => roots.clone(),
        };
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // An exchange has a connection of its own, and nothing of an earlier one.
        config.resumption = Resumption::disabled();
        Ok(self.tls.get_or_init(|| TlsConnector::from(Arc::new(config))).clone())
    }

    /// Once `sent` is set, the provider may have got the request.
    async fn exchange(&self, request: Request, sent: &mut bool) -> Result<Response, HttpError> {
        let request_url = request.url.clone();
        let connecting = tokio::time::timeout(self.limits.connect, self.connect(&request_url)).await;
        let stream =
            connecting.unwrap_or_else(|_| Err("timed out while connecting".to_owned())).map_err(HttpError::NotSent)?;
        let message = message(request).map_err(HttpError::NotSent)?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| HttpError::NotSent(explained(&error)))?;
        // Ends with this exchange, however that ends.
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        *sent = true;
        let reply = sender.send_request(message).await.map_err(|error| HttpError::Ambiguous(explained(&error)))?;
        let (parts, mut body) = reply.into_parts();
        let mut read = Zeroizing::new(Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| HttpError::Ambiguous(explained(&error)))?;
            let Some(chunk) = frame.data_ref() else { continue };
            if read.len() + chunk.len() > self.limits.body {
                return Err(HttpError::Ambiguous(format!("the reply is larger than {} bytes", self.limits.body)));
            }
            read.extend_from_slice(chunk);
        }
        Ok(Response { status: parts.status, headers: parts.headers, body: read })
    }
}

/// What a request travels on.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

const FORBIDDEN: &str = "the address is not one of the public Internet";

/// The addresses of a host that somebody else chose; if any is forbidden, none is used.
async fn allowed(url: &SafeUrl, destinations: &AllowedDestinations) -> Result<Arc<[SocketAddr]>, String> {
    let addresses: Arc<[SocketAddr]> = match resolver::literal(url.host(), url.port()) {
        Some(address) => Arc::new([address]),
        None => {
            let found = tokio::net::lookup_host((url.host(), url.port())).await;
            found.map_err(|error| error.to_string())?.collect()
        }
    };
    if addresses.iter().any(|address| !destinations.allow(address.ip())) {
        return Err(FORBIDDEN.to_owned());
    }
    Ok(addresses)
}

/// The request as it goes out.
fn message(request: Request) -> Result<http::Request<Full<Bytes>>, String> {
    let Request { method, url, headers, body } = request;
    let target = &url.url()[url::Position::BeforePath..url::Position::AfterQuery];
    let mut message = http::Request::new(Full::new(Bytes::copy_from_slice(&body)));
    *message.method_mut() = method;
    *message.uri_mut() = target.parse().map_err(|_| "the URL is no request target".to_owned())?;
    *message.headers_mut() = headers;
    let host = HeaderValue::from_str(&url.authority()).map_err(|error| error.to_string())?;
    message.headers_mut().insert(HOST, host);
    message.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    message.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    Ok(message)
}

const AGENT: &str = concat!("sidekey/", env!("CARGO_PKG_VERSION"));

#[async_trait]
impl HttpClient for NetworkClient {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let mut sent = false;
        let exchanged = tokio::time::timeout(self.limits.total, self.exchange(request, &mut sent)).await;
        exchanged.unwrap_or_else(|_| {
            let why = "timed out".to_owned();
            Err(if sent { HttpError::Ambiguous(why) } else { HttpError::NotSent(why) })
        })
    }
}

/// What hyper says, with its causes. It never names the URL: its query may hold a secret.
fn explained(error: &hyper::Error) -> String {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    why
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::base::outbound::OutboundSettings;

    fn client() -> NetworkClient {
        let limits = Limits { connect: Duration::from_millis(300), total: Duration::from_millis(600), body: 64 };
        NetworkClient::new(limits, Arc::new(Outbound::of_tests(OutboundSettings::default(), &[])))
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
