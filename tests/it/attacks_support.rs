//! An API of which a test sees and says every byte, behind every way in to the egress listener.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sidekey::base::clock::SystemClock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, read_answer};
use crate::process::certificates;
use crate::upstream_support::Identity;
use crate::world::{Setup, World};

pub const HOST: &str = "api.raw.example";

/// What is awaited comes within this time, or never.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A way to the same API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `http://127.0.0.1:8701/raw`
    BaseUrl,
    /// Inside a tunnel that was asked for without a handle.
    Tunnel,
}

pub const WAYS: [Way; 2] = [Way::BaseUrl, Way::Tunnel];

/// A connection by one way or the other.
pub enum Caller {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Caller {
    pub async fn write(&mut self, bytes: &[u8]) {
        // Whoever refuses early may be gone before all of it is written.
        let _ = match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                async {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                .await
            }
        };
    }

    pub async fn read_answer(&mut self) -> Answer {
        match self {
            Self::Plain(stream) => read_answer(stream).await,
            Self::Tls(stream) => read_answer(stream).await,
        }
    }

    /// What comes until the other side hangs up.
    pub async fn read_to_end(&mut self) -> String {
        let mut received = Vec::new();
        let read = async {
            match self {
                Self::Plain(stream) => stream.read_to_end(&mut received).await,
                Self::Tls(stream) => stream.read_to_end(&mut received).await,
            }
        };
        // An end without a farewell is one, too.
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("in time");
        String::from_utf8_lossy(&received).into_owned()
    }
}

/// A world with that API, and the handle of alice, who is connected.
pub struct Attacked {
    pub world: World,
    pub handle: String,
    pub api: RawApi,
}

impl Attacked {
    pub async fn start() -> Self {
        Self::with(HOST, "").await
    }

    /// With a certificate for this name, and these lines in the API's entry.
    pub async fn with(certified: &str, lines: &str) -> Self {
        Self::with_tables(certified, lines, "").await
    }

    /// The same, with further tables of the configuration.
    pub async fn with_tables(certified: &str, lines: &str, tables: &str) -> Self {
        let made = certificates(certified);
        let trusted = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(trusted.path(), &made.authority).expect("written");
        let api = RawApi::start(&made.identity()).await;
        let entry = format!(
            "display_name = \"Raw\"\nchecked_on = \"2026-11-21\"\ndefault_api = \"raw\"\n\
             [authorize]\nurl = \"SIMULATOR/generic/authorize\"\npkce = \"supported\"\n\
             [token]\nurl = \"SIMULATOR/generic/token\"\nclient_authentication = [\"body\"]\n\
             [rotation]\nmodel = \"static\"\n[apis.raw]\norigin = \"https://{HOST}\"\n{lines}"
        );
        let egress = format!(
            "extra_ca = {:?}\n[egress.resolve]\n\"{HOST}\" = \"{}\"\n",
            trusted.path().to_str().expect("text"),
            api.address
        );
        let setup =
            Setup { providers: vec![("raw", entry.leak(), "")], egress, tables: tables.to_owned(), ..Setup::default() };
        let world = World::with(setup, Arc::new(SystemClock)).await;
        let handle = world.connected("raw", "alice").await;
        Self { world, handle, api }
    }

    pub async fn caller(&self, way: Way) -> Caller {
        match way {
            Way::BaseUrl => Caller::Plain(TcpStream::connect(self.world.files.egress).await.expect("connected")),
            Way::Tunnel => Caller::Tls(Box::new(self.tunnel("", &["http/1.1"]).await)),
        }
    }

    /// TLS to the API's host inside a tunnel that was asked for with these lines.
    pub async fn tunnel(&self, headers: &str, protocols: &[&str]) -> TlsStream<TcpStream> {
        let (answer, stream) = self.world.tunnel(&format!("{HOST}:443"), headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.world.tls(stream, HOST, protocols).await.expect("TLS")
    }

    /// HTTP/2 inside a tunnel.
    pub async fn http_2(&self) -> h2::client::SendRequest<bytes::Bytes> {
        let (client, connection) = h2::client::handshake(self.tunnel("", &["h2"]).await).await.expect("HTTP/2");
        tokio::spawn(connection);
        client
    }

    /// The target by which a path of the API is reached.
    pub fn target(&self, way: Way, path: &str) -> String {
        match way {
            Way::BaseUrl => format!("/raw{path}"),
            Way::Tunnel => path.to_owned(),
        }
    }

    pub fn host(&self, way: Way) -> &'static str {
        match way {
            Way::BaseUrl => "127.0.0.1",
            Way::Tunnel => HOST,
        }
    }

    /// The head of a request with the handle, without its end.
    pub fn head(&self, way: Way, method: &str, path: &str) -> String {
        let (target, host, handle) = (self.target(way, path), self.host(way), &self.handle);
        format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {handle}\r\n")
    }

    /// Sends this on a connection of its own, and reads one answer.
    pub async fn raw(&self, way: Way, request: &[u8]) -> Answer {
        let mut caller = self.caller(way).await;
        caller.write(request).await;
        caller.read_answer().await
    }

    /// A GET with the handle and these further lines.
    pub async fn get(&self, way: Way, path: &str, lines: &str) -> Answer {
        self.raw(way, format!("{}{lines}\r\n", self.head(way, "GET", path)).as_bytes()).await
    }

    /// Makes sure that nothing of what was refused is still on its way: a good call arrives, and is the only one.
    pub async fn assert_untouched(&self) {
        assert_eq!(self.get(Way::BaseUrl, "/witness", "").await.status, 200);
        let requests = self.api.take();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert!(requests[0].starts_with("GET /witness HTTP/1.1\r\n"), "{requests:?}");
    }

    pub fn tokens(&self) -> Vec<String> {
        self.world.simulator.issued_values().access_tokens
    }
}

/// The values of a header in a request as it was written.
pub fn values(request: &str, name: &str) -> Vec<String> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs.filter(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

/// The API: answers with the digits of a count and the request's path, unless the path says otherwise.
pub struct RawApi {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    /// Lets what waits in `/late` and `/idle` go on.
    pub go_on: Arc<Notify>,
    /// Says that `/late` has been asked, or `/idle` has written what nobody asked for.
    pub reached: Arc<Notify>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    requests: Arc<Mutex<Vec<String>>>,
    go_on: Arc<Notify>,
    reached: Arc<Notify>,
}

impl RawApi {
    async fn start(identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let acceptor = identity.acceptor();
        let script = Script { requests: Arc::default(), go_on: Arc::default(), reached: Arc::default() };
        let kept = script.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // What is written is there when the write returns, and not once the other side has asked for more.
                stream.set_nodelay(true).expect("set");
                let (acceptor, script) = (acceptor.clone(), script.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        script.serve(stream).await;
                    }
                });
            }
        });
        let Script { requests, go_on, reached } = kept;
        Self { address, requests, go_on, reached, serving }
    }

    /// The requests that came whole since this was asked last.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("no panic"))
    }
}

impl Drop for RawApi {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Script {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut read = Vec::new();
        while let Some(request) = next_request(&mut stream, &mut read).await {
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            self.requests.lock().expect("no panic").push(request.clone());
            let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let own = answer(&path);
            let evil = answer("EVIL");
            let text = match path.split('?').next().unwrap_or_default() {
                "/redirect" => {
                    let (_, query) = path.split_once('?').expect("a query");
                    let (status, to) = query.split_once('&').expect("two");
                    format!(
                        "HTTP/1.1 {status} Elsewhere\r\nlocation: {to}\r\nrefresh: 0; url={to}\r\ncontent-length: 0\r\n\r\n"
                    )
                }
                "/twice" => format!("{own}{evil}"),
                "/early" => format!("{}{own}", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(2_000)),
                "/late" => {
                    self.reached.notify_one();
                    self.go_on.notified().await;
                    evil.clone()
                }
                _ => own,
            };
            if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            if path == "/idle" {
                self.go_on.notified().await;
                let _ = stream.write_all(evil.as_bytes()).await;
                let _ = stream.flush().await;
                self.reached.notify_one();
            }
        }
    }
}

/// The next whole request, head and body as they came.
async fn next_request(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(length) = whole(read) {
            let rest = read.split_off(length);
            let request = std::mem::replace(read, rest);
            return Some(String::from_utf8_lossy(&request).into_owned());
        }
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        read.extend_from_slice(&chunk[..length]);
    }
}

/// How long the request is that these bytes begin with, if it is all there.
fn whole(read: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(read);
    let head = text.find("\r\n\r\n")? + 4;
    if values(&text[..head], "transfer-encoding").iter().any(|coding| coding == "chunked") {
        // Bodies of tests hold no such thing themselves.
        return text[head - 2..].find("\r\n0\r\n\r\n").map(|at| head - 2 + at + 7);
    }
    let length = values(&text[..head], "content-length").first().map_or(0, |length| length.parse().expect("a number"));
    (read.len() >= head + length).then_some(head + length)
}
