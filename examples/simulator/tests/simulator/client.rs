//! A tiny HTTP/1.1 client: one request per connection, and everything that came back, even if it broke off.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back until the connection ended.
#[derive(Debug)]
pub struct Answer {
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How the connection ended, if not orderly.
    pub error: Option<io::ErrorKind>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body announced but not sent is how long?
    pub fn missing(&self) -> usize {
        let announced: usize = self.header("content-length").parse().unwrap_or_default();
        announced.saturating_sub(self.body.len())
    }

    pub fn was_reset(&self) -> bool {
        self.error == Some(io::ErrorKind::ConnectionReset)
    }

    /// Parameters of the URL that this redirects to.
    pub fn redirected(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(self.header("location")).unwrap();
        let mut pairs = url.query_pairs();
        pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    }
}

pub async fn request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let stream = TcpStream::connect(to).await.unwrap();
    exchange(stream, method, target, headers, body.as_ref()).await
}

pub async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let host = headers.iter().find(|(name, _)| *name == "host").map_or("simulator.test", |(_, host)| host);
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    // A reset may arrive while this is still writing; reading tells it as well.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let mut received = Vec::new();
    let error = stream.read_to_end(&mut received).await.err().map(|error| error.kind());
    parsed(&received, error)
}

fn parsed(received: &[u8], error: Option<io::ErrorKind>) -> Answer {
    let mut answer = Answer { status: None, headers: Vec::new(), body: Vec::new(), error };
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return answer;
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let mut lines = head.split("\r\n");
    answer.status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    answer.headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    answer.body = received[end + 4..].to_vec();
    if answer.header("transfer-encoding") == "chunked" {
        answer.body = dechunked(&answer.body);
    }
    answer
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap();
        let start = end + 2;
        if size == 0 || rest.len() < start + size + 2 {
            break;
        }
        body.extend_from_slice(&rest[start..start + size]);
        rest = &rest[start + size + 2..];
    }
    body
}
