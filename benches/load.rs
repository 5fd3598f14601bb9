//! The load of `benches/run` on proxies that intercept: connections kept alive, through tunnels whose TLS ends at the proxy,
//! or, without a host, straight to it as base URL. Every answer is checked.
//!
//! Connections are open, and have had an answer each, before `ready` is printed and the time begins. At its end one line of
//! JSON follows: requests, seconds, median and 99th percentile of the time one took in milliseconds, errors and the first one.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures_util::future::{join_all, try_join_all};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use sidekey::telemetry::stopwatch::Stopwatch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Asks the same again and again.
#[derive(Parser)]
struct Arguments {
    /// The proxy.
    #[arg(long)]
    proxy: SocketAddr,
    /// The host that tunnels are asked for, at port 443.
    #[arg(long, requires = "ca")]
    host: Option<String>,
    /// What is trusted inside the tunnels (PEM).
    #[arg(long, requires = "host")]
    ca: Option<PathBuf>,
    /// The path that is asked for.
    #[arg(long)]
    path: String,
    /// A header of each request (repeatable).
    #[arg(long)]
    header: Vec<String>,
    /// The body that each answer must have.
    #[arg(long)]
    body: String,
    /// How many connections there are.
    #[arg(long)]
    connections: usize,
    /// For how long.
    #[arg(long)]
    seconds: f64,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let tunnels = Tunnels::new(arguments)?;
    let mut callers = try_join_all((0..arguments.connections).map(|_| Caller::new(arguments, &tunnels))).await?;
    println!("ready");
    std::io::stdout().flush()?;
    let running = Stopwatch::start();
    let end = Duration::from_secs_f64(arguments.seconds);
    let done = join_all(callers.iter_mut().map(|caller| caller.call_until(running, end))).await;
    let seconds = running.elapsed().as_secs_f64();
    let mut taken: Vec<Duration> = callers.iter().flat_map(|caller| &caller.taken).copied().collect();
    taken.sort_unstable();
    let errors: Vec<String> = done.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    let result = json!({
        "requests": taken.len(),
        "seconds": seconds,
        "p50_ms": percentile(&taken, 50),
        "p99_ms": percentile(&taken, 99),
        "errors": errors.len(),
        "error": errors.first(),
    });
    println!("{result}");
    Ok(())
}

/// Milliseconds that so many of a hundred took at most.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).map(|taken| taken.as_secs_f64() * 1000.0)
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// How connections are opened.
struct Tunnels {
    proxy: SocketAddr,
    /// The host, and the TLS inside.
    inside: Option<(String, TlsConnector)>,
}

impl Tunnels {
    fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let inside = match (&arguments.host, &arguments.ca) {
            (Some(host), Some(ca)) => Some((host.clone(), trusting(&std::fs::read(ca)?)?)),
            _ => None,
        };
        Ok(Self { proxy: arguments.proxy, inside })
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Failure> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        let Some((host, connector)) = &self.inside else { return Ok(Box::new(stream)) };
        let ask = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
        stream.write_all(ask.as_bytes()).await?;
        // TLS comes after the head, and only once we have begun it: nothing of it can be read here by mistake.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 200 ") {
            return Err(format!("no tunnel: {}", String::from_utf8_lossy(&head)).into());
        }
        Ok(Box::new(connector.connect(ServerName::try_from(host.clone())?, stream).await?))
    }
}

/// HTTP/1.1 over TLS, trusting these certificates alone.
fn trusting(pem: &[u8]) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One connection, and what was asked on it.
struct Caller {
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    body: Vec<u8>,
    received: Vec<u8>,
    taken: Vec<Duration>,
}

impl Caller {
    /// Opens it, and asks once.
    async fn new(arguments: &Arguments, tunnels: &Tunnels) -> Result<Self, Failure> {
        let authority = arguments.host.clone().unwrap_or_else(|| arguments.proxy.to_string());
        let headers: String = arguments.header.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET {} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n", arguments.path).into_bytes();
        let body = arguments.body.clone().into_bytes();
        let stream = tunnels.open().await?;
        let mut caller = Self { stream, request, body, received: Vec::new(), taken: Vec::new() };
        caller.call().await?;
        Ok(caller)
    }

    async fn call_until(&mut self, running: Stopwatch, end: Duration) -> Result<(), Failure> {
        let mut begin = running.elapsed();
        while begin < end {
            self.call().await?;
            let answered = running.elapsed();
            self.taken.push(answered - begin);
            begin = answered;
        }
        Ok(())
    }

    async fn call(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(format!("cut: {}", String::from_utf8_lossy(&self.received)).into());
            }
            if let Some(answer) = answer(&self.received)? {
                return match answer == self.body {
                    true => Ok(()),
                    false => Err(format!("another body: {}", String::from_utf8_lossy(answer)).into()),
                };
            }
        }
    }
}

/// The body, once it is there: of an answer with status 200 and a known length, and nothing after it.
fn answer(received: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else { return Ok(None) };
    if response.code != Some(200) {
        return Err(format!("not 200: {}", String::from_utf8_lossy(received)).into());
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.ok_or("an answer without a length")?.value)?.parse()?;
    let body = &received[head..];
    if body.len() > length {
        return Err("more than was asked for".into());
    }
    Ok((body.len() == length).then_some(body))
}
