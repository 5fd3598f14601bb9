//! `sidekey probe live|ready`: what the probe of a container runs, every few seconds. It reads no secret and starts no threads.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::output::remark;
use super::{CliError, CommonArguments, say};
use crate::base::toml_document::Problem;
use crate::config;

/// Arguments of `probe`.
#[derive(Args)]
pub struct Arguments {
    /// What is asked.
    #[arg(value_enum)]
    what: What,
    /// Where metrics and probes are answered; without it, `metrics.listen` of the configuration.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    #[command(flatten)]
    common: CommonArguments,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Whether the process answers.
    Live,
    /// Whether it is ready for traffic.
    Ready,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
        }
    }
}

/// Less than the second that Kubernetes gives a probe by itself.
const PATIENCE: Duration = Duration::from_millis(900);
/// More than what is not well takes to tell.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Asks, and fails if the answer is no.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let word = arguments.what.word();
    let path = format!("/{word}z");
    let (address, answer) = match arguments.address {
        Some(address) => (address, ask(reachable(address), &path)),
        None => ask_found(arguments.common.file(), &path),
    };
    let (well, troubles) = match answer {
        Ok((200, _)) => (true, Value::Null),
        Ok((_, troubles @ Value::Object(_))) => (false, troubles),
        Ok((status, _)) => (false, json!({ "probe": format!("HTTP {status}") })),
        Err(error) => (false, json!({ "probe": format!("{address}: {error}") })),
    };
    if arguments.common.json {
        say(&json!({ "probe": word, "well": well, "troubles": troubles }).to_string());
    } else if well {
        say(word);
    } else {
        let told = troubles.as_object().into_iter().flatten();
        let told: Vec<String> = told.map(|(part, why)| format!("{part}: {}", why.as_str().unwrap_or("-"))).collect();
        remark(&format!("not {word}: {}", told.join("; ")));
    }
    if well { Ok(()) } else { Err(CliError::Said(1)) }
}

/// Asks the server that goes by the configuration. An edit that went wrong, or that waits for a restart, must not have a server ended
/// that is well: what cannot be read is taken to be as usual, and where nobody answers the admin socket is asked for the address.
fn ask_found(config: &Path, path: &str) -> (SocketAddr, std::io::Result<(u16, Value)>) {
    let doubt = |problem: &Problem| remark(&format!("{problem}; the usual is taken for it"));
    let (metrics, socket) = match config::places(config) {
        Ok(places) => (places.metrics.inspect_err(doubt).ok(), Some(places.admin_socket)),
        Err(problems) => {
            problems.iter().for_each(doubt);
            (None, None)
        }
    };
    let address = metrics.unwrap_or_else(config::usual_metrics_address);
    let answer = ask(reachable(address), path);
    match socket.filter(|_| answer.is_err()).and_then(|socket| listens_at(&socket)) {
        Some(other) if other != address => (other, ask(reachable(other), path)),
        _ => (address, answer),
    }
}

/// Where the server behind the admin socket answers probes.
fn listens_at(socket: &Path) -> Option<SocketAddr> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let (_, answer) = exchange(stream, "localhost", "/v1/server").ok()?;
    answer["listens"]["metrics"].as_str()?.parse().ok()
}

/// What listens on all addresses is reached on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<(u16, Value)> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, &address.to_string(), path)
}

/// The status, and the body if it is JSON. The request is one that every HTTP server ends its connection after.
fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> std::io::Result<(u16, Value)> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let malformed = || std::io::Error::new(std::io::ErrorKind::InvalidData, "something else answers there");
    let Ok(httparse::Status::Complete(length)) = head.parse(&answer) else { return Err(malformed()) };
    let status = head.code.ok_or_else(malformed)?;
    Ok((status, serde_json::from_slice(&answer[length..]).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reached("[::]:9464"), "[::1]:9464");
        assert_eq!(reached("10.0.0.7:9464"), "10.0.0.7:9464");
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("known");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("asked");
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"SSH-2.0-hello\r\n").expect("answered");
        });
        assert_eq!(ask(address, "/livez").expect_err("no").to_string(), "something else answers there");
        server.join().expect("ended");
        assert!(ask(address, "/livez").is_err(), "nobody listens anymore");
    }
}
