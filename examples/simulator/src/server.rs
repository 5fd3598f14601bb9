//! Accepts connections and sends each request to its endpoint.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{CuttableStream, Cutter};
use crate::profile::Profile;
use crate::reply::{Reply, drain, json as json_reply, watched};
use crate::settings::Settings;
use crate::state::Shared;
use crate::{api, authorize, clock, control, hosts, revoke, token, userinfo};

/// What endpoints know about a request besides itself.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) profile: Profile,
    pub(crate) cutter: Cutter,
    /// Scheme and authority that the client used.
    pub(crate) origin: String,
    /// The host in it, with its port if there is one.
    pub(crate) host: String,
    /// What stands between that and the paths of the API.
    pub(crate) api_base: String,
    /// The path that the client used.
    pub(crate) path: String,
    /// What the real company calls itself, where it is played under its real name.
    pub(crate) official: Option<&'static str>,
}

/// What a request is for.
pub(crate) enum Asked {
    /// An endpoint of a company: its name, or `api/...`.
    Of(Profile, String),
    /// The simulator itself.
    Control(String),
    /// Nothing that there is.
    Nothing,
    /// A host that is not played.
    Misdirected,
}

impl Call {
    /// What the profile calls itself.
    pub(crate) fn issuer(&self, settings: &Settings) -> String {
        let own = || self.official.map_or_else(|| format!("{}/{}", self.origin, self.profile.name()), str::to_owned);
        settings.issuer.clone().unwrap_or_else(own)
    }
}

/// What connections have in common.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) address: SocketAddr,
    /// Whether the host says which company is meant, and paths are the company's own.
    pub(crate) by_host: bool,
    /// Whose a host is that several companies have.
    pub(crate) preferred: Arc<[Profile]>,
}

impl Server {
    /// Serves until its task is aborted, which also ends all connections.
    pub(crate) async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let connected = self.shared.connected();
                        let connection = self.clone().connection(stream);
                        connections.spawn(async move {
                            connection.await;
                            drop(connected);
                        });
                    }
                    // Out of file descriptors, most likely: some will be free again soon.
                    Err(_) => clock::sleep(Duration::from_millis(20)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        // Streams must arrive piece by piece. Without the option they are only less punctual.
        let _ = stream.set_nodelay(true);
        let cutter = Cutter::default();
        let stream = CuttableStream::new(stream, cutter.clone());
        match self.tls.clone() {
            None => self.http(stream, cutter).await,
            Some(acceptor) => {
                if let Ok(stream) = acceptor.accept(stream).await {
                    self.http(stream, cutter).await;
                }
            }
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, cutter: Cutter) {
        let on_request = cutter.clone();
        let service = service_fn(move |request| {
            let (server, cutter) = (self.clone(), on_request.clone());
            async move { Ok::<_, Infallible>(watched(server.answer(cutter, request).await)) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // How a client ends its connection is its own business.
            _ = serving => {}
            () = cutter.asked() => {}
        }
    }

    async fn answer(self, cutter: Cutter, request: Request<Incoming>) -> Reply {
        let asked = if self.by_host { hosts::asked(&request, &self.preferred) } else { by_path(&request) };
        let (profile, rest) = match asked {
            Asked::Control(rest) => return control::answer(&self.shared, &rest, request).await,
            Asked::Nothing => return not_found(request).await,
            Asked::Misdirected => return misdirected(request).await,
            Asked::Of(profile, rest) => (profile, rest),
        };
        let call = Call {
            origin: self.origin(&request),
            host: host_of(&request).unwrap_or_default().to_owned(),
            api_base: if self.by_host { String::new() } else { format!("/{}/api", profile.name()) },
            path: request.uri().path().to_owned(),
            official: self.by_host.then(|| hosts::issuer(profile)).flatten(),
            shared: self.shared,
            profile,
            cutter,
        };
        let method = request.method().clone();
        match (&method, rest.as_str()) {
            (&Method::GET, "authorize") => {
                let query = request.uri().query().unwrap_or_default().to_owned();
                authorize::answer(call, &query).await
            }
            (&Method::POST, "token" | "refresh") => token::answer(call, &rest, request).await,
            (&Method::POST, "revoke") => revoke::answer(call, request).await,
            (_, "revoke") if revoke::is_own_method(profile, &method) => revoke::answer(call, request).await,
            (&Method::GET, "jwks.json") if profile.has_openid() => {
                drain(request.into_body()).await;
                json_reply(200, &call.shared.keys.set())
            }
            _ if userinfo::is_asked(profile, &method, &rest) => userinfo::answer(call, request).await,
            _ if revoke::is_github_revocation(profile, &method, &rest) => revoke::answer(call, request).await,
            _ => match rest.strip_prefix("api") {
                Some(path) if path.is_empty() || path.starts_with('/') => api::answer(call, path, request).await,
                _ => not_found(request).await,
            },
        }
    }

    fn origin(&self, request: &Request<Incoming>) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match host_of(request) {
            Some(host) => format!("{scheme}://{host}"),
            None => format!("{scheme}://{}", self.address),
        }
    }
}

fn host_of(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(HOST)?.to_str().ok()
}

/// What a request is for: the first segment names the company, the rest the endpoint or `api/...`.
fn by_path(request: &Request<Incoming>) -> Asked {
    let path = request.uri().path().trim_start_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match (first, Profile::from_name(first)) {
        ("control", _) => Asked::Control(rest.to_owned()),
        (_, Some(profile)) => Asked::Of(profile, rest.to_owned()),
        (_, None) => Asked::Nothing,
    }
}

async fn not_found(request: Request<Incoming>) -> Reply {
    drain(request.into_body()).await;
    json_reply(404, &json!({"error": "the simulator has nothing here"}))
}

/// RFC 9110 section 15.5.20.
async fn misdirected(request: Request<Incoming>) -> Reply {
    drain(request.into_body()).await;
    json_reply(421, &json!({"error": "the simulator does not play this host"}))
}
