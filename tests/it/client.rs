//! HTTP clients for tests: one that does as a browser does, and one that sends any bytes.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client that follows no redirects.
#[expect(clippy::disallowed_methods, reason = "a test is a client of Sidekey, not a part of it")]
pub fn http() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    client.timeout(Duration::from_secs(60)).build().expect("a client")
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let mut answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
    Answer { status, headers, body: answer.bytes().await.expect("a body").to_vec() }
}

/// A form as browsers and OAuth clients send it.
pub fn form(
    request: reqwest::RequestBuilder,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// Sends bytes as they are, and reads one answer.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request).await.expect("sent");
    read_answer(&mut stream).await
}

/// Reads one answer from a connection that may carry more.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut received = Vec::new();
    let head_end = loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(read_some(stream, &mut received).await, "cut: {}", String::from_utf8_lossy(&received));
    };
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).expect("a status");
    let headers: http::HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse::<http::HeaderName>().expect("a name"), value.parse().expect("a value")))
        .collect();
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    while length.is_some_and(|length| received.len() < head_end + length) && read_some(stream, &mut received).await {}
    let end = length.map_or(received.len(), |length| head_end + length);
    Answer { status, headers, body: received[head_end..end].to_vec() }
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), received: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut chunk)).await.expect("in time");
    match read {
        Ok(0) | Err(_) => false,
        Ok(length) => {
            received.extend_from_slice(&chunk[..length]);
            true
        }
    }
}
