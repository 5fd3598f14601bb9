//! Opening a connection along a way: TCP, and a tunnel through the proxy where there is one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Tunnel, Way};

/// What a proxy may answer before it must come to an end.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Why a proxy leads nowhere. Nothing was sent to the provider.
#[derive(Debug)]
pub enum TunnelError {
    /// It does not accept connections, or hangs up.
    Broken(io::Error),
    /// It refused, with this status.
    Refused(u16),
    /// It does not speak HTTP.
    Nonsense,
}

impl fmt::Display for TunnelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(formatter, "the upstream proxy: {error}"),
            Self::Refused(407) => write!(formatter, "the upstream proxy wants other credentials (407)"),
            Self::Refused(status) => write!(formatter, "the upstream proxy refused with status {status}"),
            Self::Nonsense => write!(formatter, "what egress.upstream_proxy names is no HTTP proxy"),
        }
    }
}

impl Tunnel {
    /// A tunnel through the proxy at `address`, one of its addresses.
    pub async fn open(&self, address: SocketAddr) -> Result<TcpStream, TunnelError> {
        let mut stream = TcpStream::connect(address).await.map_err(TunnelError::Broken)?;
        let request = self.proxy.request(&self.target);
        stream.write_all(request.expose().as_bytes()).await.map_err(TunnelError::Broken)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            // Nobody speaks in the tunnel before we do, so nothing but the answer can come.
            if answer.len() > LONGEST_ANSWER || answer.windows(4).any(|end| end == b"\r\n\r\n") {
                return Err(TunnelError::Nonsense);
            }
            let read = stream.read_buf(&mut answer).await.map_err(TunnelError::Broken)?;
            if read == 0 {
                let refused = status(&answer).filter(|status| !(200..300).contains(status));
                let cut = || TunnelError::Broken(io::ErrorKind::UnexpectedEof.into());
                return Err(refused.map_or_else(cut, TunnelError::Refused));
            }
            // A refusal may come with a page; it is of no interest.
            if let Some(refused) = status(&answer).filter(|status| !(200..300).contains(status)) {
                return Err(TunnelError::Refused(refused));
            }
        }
        match status(&answer) {
            Some(200..300) => Ok(stream),
            _ => Err(TunnelError::Nonsense),
        }
    }
}

/// The status of an answer whose first line is there.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\r"))?;
    let mut parts = std::str::from_utf8(line).ok()?.split(' ');
    parts.next().filter(|version| version.starts_with("HTTP/1."))?;
    parts.next()?.trim().parse().ok()
}

impl Way {
    /// A connection to the first address that accepts one; they share the time.
    pub async fn open(&self, time: Duration) -> Result<TcpStream, String> {
        let addresses = self.addresses();
        let share = time / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut why = String::from("there is no address");
        for address in addresses.iter() {
            match tokio::time::timeout(share, self.open_at(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => why = error,
                Err(_) => why = "timed out while connecting".to_owned(),
            }
        }
        Err(why)
    }

    async fn open_at(&self, address: SocketAddr) -> Result<TcpStream, String> {
        let stream = match self {
            Self::Direct(_) => TcpStream::connect(address).await.map_err(|error| error.to_string())?,
            Self::Tunnel(tunnel) => tunnel.open(address).await.map_err(|error| error.to_string())?,
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_once_its_line_is_there() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\nx: y"), Some(407));
        for nothing in [&b"HTTP/1.1 20"[..], b"", b"220 smtp.example ESMTP\r\n", b"HTTP/1.1 two\r\n"] {
            assert_eq!(status(nothing), None);
        }
    }
}
