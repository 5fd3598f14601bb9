//! The ways in to the egress listener. The first bytes of a connection decide: a request like any other (base URL, or
//! absolute form) goes to [`Egress`](super::egress::Egress) as it is; `CONNECT` asks for a tunnel; a TLS ClientHello
//! names the host it was meant for.
//!
//! A tunnel to a provider's host, and TLS for one, end here: a certificate of the local authority is shown, and what
//! comes out is requests again, which know by [`Arrival`] how they came. A tunnel to another host is passed on unseen,
//! where that is allowed.

mod client_hello;
mod connect;
mod first_bytes;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::proxy::{HttpProxy, Session};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::debug;

use self::client_hello::Hello;
use self::connect::{ConnectRequest, Verdict};
use self::first_bytes::Kind;
use super::connection::Connection;
use super::current::Current;
use super::egress::{Egress, Refusal};
use crate::authority::Authority;
use crate::base::secret::Secret;

pub use self::connect::{Credential, credential};
pub use self::tunnel::Tunnels;

/// So long a connection may be silent before its first request, as Pingora has it for those that follow.
const FIRST_BYTES: Duration = Duration::from_secs(60);
/// A `CONNECT` request, and a ClientHello, must be there in this time, however slowly their bytes come.
const HEAD: Duration = Duration::from_secs(10);
/// A TLS client must be through with its handshake in this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How a connection arrived whose TLS ends here.
#[derive(Debug)]
pub struct Arrival {
    /// The provider's host that it is for: what the certificate says.
    pub host: String,
    /// Whether the tunnel was asked for another host than the one that TLS names: nothing on it is passed on.
    pub is_misdirected: bool,
    /// The port that the tunnel was asked for; unknown for TLS without a tunnel.
    pub port: Option<u16>,
    /// The port of our listener, which a client that was led here may name.
    pub listeners_port: Option<u16>,
    /// The handle that the tunnel was asked for with.
    pub handle: Option<Secret>,
}

impl Arrival {
    /// How the connection of a request arrived, if in a way of its own.
    pub fn of(session: &Session) -> Option<&Self> {
        session.as_downstream().digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }
}

/// What stands in front of the egress listener's application.
pub struct Front {
    application: Arc<HttpProxy<Current<Egress>>>,
    tunnels: Arc<Tunnels>,
    authority: Arc<Authority>,
}

impl Front {
    /// In front of `application`.
    pub fn new(application: Arc<HttpProxy<Current<Egress>>>, tunnels: Arc<Tunnels>, authority: Arc<Authority>) -> Self {
        Self { application, tunnels, authority }
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, stream: TcpStream, stopping: &watch::Receiver<bool>) {
        let mut stopped = stopping.clone();
        let first = tokio::select! {
            first = tokio::time::timeout(FIRST_BYTES, first_bytes::read(stream)) => first,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Ok(Ok(first)) = first else { return };
        match first.kind {
            Kind::Request => {
                self.application.process_new(Box::new(first.connection), stopping).await;
            }
            Kind::Connect => self.connect(first.connection, stopping).await,
            Kind::Tls => self.terminate(first.connection, None, stopping).await,
        }
    }

    async fn connect(&self, mut connection: Connection, stopping: &watch::Receiver<bool>) {
        let Ok(Ok(head)) = tokio::time::timeout(HEAD, connect::read_head(&mut connection)).await else { return };
        let asked = match connect::parse(&head) {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(&mut connection, &refusal, None).await,
        };
        match self.tunnels.judge(&asked) {
            Ok(Verdict::Terminate { handle }) => {
                if connect::establish(&mut connection).await.is_ok() {
                    let asked = Asked { host: asked.host, port: asked.port, handle };
                    self.terminate(connection, Some(asked), stopping).await;
                }
            }
            Ok(Verdict::PassOn) => match self.tunnels.reach(&asked).await {
                Ok(upstream) => {
                    if connect::establish(&mut connection).await.is_ok() {
                        tunnel::pass_on(connection, upstream, &asked.host).await;
                    }
                }
                Err(refusal) => self.refuse(&mut connection, &refusal, Some(&asked)).await,
            },
            Err(refusal) => self.refuse(&mut connection, &refusal, Some(&asked)).await,
        }
    }

    async fn refuse(&self, connection: &mut Connection, refusal: &Refusal, asked: Option<&ConnectRequest>) {
        let problem = self.tunnels.refused(refusal, asked);
        if let Err(error) = connect::answer(connection, &problem, &refusal.headers()).await {
            debug!(operation = "tunnel", %error, "the caller went away");
        }
    }

    /// Ends TLS here, and serves what is inside.
    async fn terminate(&self, mut connection: Connection, asked: Option<Asked>, stopping: &watch::Receiver<bool>) {
        let Ok(Ok(hello)) = tokio::time::timeout(HEAD, client_hello::read(&mut connection)).await else { return };
        let name = match hello {
            Hello::Names(name) => name,
            Hello::NamesNobody => String::new(),
            Hello::NoTls => {
                let host = asked.as_ref().map_or("", |asked| asked.host.as_str());
                return self.tunnels.count(&Refusal::NoTls, host);
            }
        };
        let config = self.tunnels.hosts.ports(&name).and_then(|_| self.authority.server_config(&name));
        let Some(config) = config else {
            self.tunnels.count(&Refusal::HostNotListed, &name);
            return client_hello::refuse(&mut connection).await;
        };
        let is_misdirected = asked.as_ref().is_some_and(|asked| asked.host != name);
        let listeners_port = connection.local_port();
        let (port, handle) = asked.map_or((None, None), |asked| (Some(asked.port), asked.handle));
        let host = name.clone();
        let arrival = Arrival { host: name, is_misdirected, port, listeners_port, handle };
        if connection.arrived(arrival).is_err() {
            return;
        }
        let acceptor = Acceptor::from_server_config(config);
        match tokio::time::timeout(HANDSHAKE, acceptor.tls_handshake(connection)).await {
            Ok(Ok(stream)) => {
                self.application.process_new(Box::new(stream), stopping).await;
            }
            // Most likely a client that does not trust the local authority.
            Ok(Err(error)) => {
                debug!(operation = "tls_handshake", %error);
                self.tunnels.count(&Refusal::HandshakeFailed, &host);
            }
            Err(_) => {}
        }
    }
}

/// What a tunnel that ends here was asked for.
struct Asked {
    host: String,
    port: u16,
    handle: Option<Secret>,
}
