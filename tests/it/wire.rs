//! One end of a connection of which a test writes and reads every byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::front::{Front, Tokens};
use crate::front_support::{Special, start};

/// What is awaited comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("connected"), read: Vec::new() }
    }

    pub async fn accept(listener: &TcpListener) -> Self {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time");
        Self { stream: accepted.expect("accepted").0, read: Vec::new() }
    }

    pub async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("sent");
    }

    /// Everything that comes, up to and including `end`.
    pub async fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(text).expect("text");
            }
            let more = self.read_more().await;
            assert!(more, "cut before {end:?}: {}", String::from_utf8_lossy(&self.read));
        }
    }

    pub async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await.to_ascii_lowercase()
    }

    /// What comes until the other side hangs up.
    pub async fn read_to_end(&mut self) -> String {
        while self.read_more().await {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Waits until the other side hangs up.
    pub async fn ends(&mut self) {
        while self.read_more().await {}
    }

    async fn read_more(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("in time");
        let length = read.unwrap_or(0);
        self.read.extend_from_slice(&chunk[..length]);
        length > 0
    }
}

/// A front with a second server at `/raw/mcp`, which the test itself is; and a user's tokens for it.
pub async fn raw_server() -> (Front, TcpListener, Tokens) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let tables = format!("[servers.raw]\nupstream = \"http://{address}/mcp\"\n");
    let front = start(Special { tables, ..Special::default() }).await;
    let tokens = front.authorized_at("/raw/mcp", "alice").await;
    (front, listener, tokens)
}

/// The head of a request to it.
pub fn head(front: &Front, tokens: &Tokens, method: &str, more: &str) -> String {
    let (host, token) = (front.world.files.public, &tokens.access);
    format!("{method} /raw/mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n{more}\r\n")
}
