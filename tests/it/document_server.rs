//! A site with TLS that publishes client documents and keys, well or badly.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sidekey::base::address::AllowedDestinations;
use sidekey::base::http::{HttpClient, NetworkClient};
use sidekey::server::DOCUMENT_LIMITS;

use crate::front::{REDIRECT_URI, WEB_REDIRECT_URI};

/// What is at one path.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Sends one byte at a time.
    pub drips: bool,
}

impl Reply {
    pub fn json(document: &Value) -> Self {
        Self::new(200, "application/json", document.to_string().into_bytes())
    }

    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = match content_type {
            "" => Vec::new(),
            content_type => vec![("content-type", content_type.to_owned())],
        };
        Self { status, headers, body, drips: false }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    requests: Vec<String>,
    is_down: bool,
    is_held: bool,
    open: usize,
    most_open: usize,
}

/// The site, at `https://localhost:PORT`.
pub struct DocumentServer {
    port: u16,
    certificate: CertificateDer<'static>,
    state: Arc<Mutex<State>>,
}

impl DocumentServer {
    pub fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![certificate.clone()], key);
        let config = Arc::new(config.expect("a configuration"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (Arc::clone(&config), Arc::clone(&shared));
                std::thread::spawn(move || answer(stream, config, &state));
            }
        });
        Self { port, certificate, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a lock")
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn put(&self, path: &str, reply: Reply) {
        self.state().replies.insert(path.to_owned(), reply);
    }

    /// Publishes a good document with some members changed (null: left out): the client's id.
    pub fn publish(&self, path: &str, changes: &[(&str, Value)]) -> String {
        self.put(path, Reply::json(&self.document(path, changes)));
        self.url(path)
    }

    pub fn document(&self, path: &str, changes: &[(&str, Value)]) -> Value {
        let mut document = json!({
            "client_id": self.url(path), "client_name": "A documented client",
            "redirect_uris": [REDIRECT_URI, WEB_REDIRECT_URI], "token_endpoint_auth_method": "none",
        });
        for (name, value) in changes {
            document[*name] = value.clone();
        }
        let members = document.as_object_mut().expect("an object");
        members.retain(|_, value| !value.is_null());
        document
    }

    /// From now on it hangs up at once, or no more.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// From now on it keeps whoever asks waiting, or no more.
    pub fn set_held(&self, is_held: bool) {
        self.state().is_held = is_held;
    }

    /// The paths that were asked for.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// How many are waiting right now, and the most there ever were.
    pub fn open(&self) -> (usize, usize) {
        let state = self.state();
        (state.open, state.most_open)
    }

    /// The client of a real Sidekey, but that it trusts this site and may reach this machine.
    pub fn client(&self) -> Option<Arc<dyn HttpClient>> {
        let networks = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
        let allowed = AllowedDestinations(networks.to_vec());
        let client = NetworkClient::guarded(DOCUMENT_LIMITS, std::slice::from_ref(&self.certificate), allowed);
        Some(Arc::new(client.expect("a client")))
    }
}

fn answer(stream: TcpStream, config: Arc<rustls::ServerConfig>, state: &Mutex<State>) {
    let lock = || state.lock().expect("a lock");
    if lock().is_down {
        return;
    }
    let connection = rustls::ServerConnection::new(config).expect("a connection");
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&chunk[..length]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("GET ") && head.to_ascii_lowercase().contains("accept: application/json"), "{head}");
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = {
        let mut state = lock();
        state.requests.push(path.clone());
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        state.replies.get(&path).cloned().unwrap_or_else(|| Reply::new(404, "text/plain", b"nothing".to_vec()))
    };
    while lock().is_held {
        std::thread::sleep(Duration::from_millis(5));
    }
    write(&mut stream, &reply);
    lock().open -= 1;
}

/// Whether the other side is still there does not matter.
fn write(stream: &mut rustls::StreamOwned<rustls::ServerConnection, TcpStream>, reply: &Reply) {
    let mut head =
        format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if reply.drips {
        for byte in &reply.body {
            std::thread::sleep(Duration::from_millis(100));
            if stream.write_all(&[*byte]).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    } else {
        let _ = stream.write_all(&reply.body);
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}
