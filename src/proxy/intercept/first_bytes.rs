//! What kind of connection it is: told from as few bytes as that takes, however they come.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::super::connection::Connection;

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests, in origin or absolute form.
    Request,
    /// A request for a tunnel.
    Connect,
    /// TLS.
    Tls,
}

/// A connection whose kind is known; nothing of it is lost.
pub struct First {
    /// What it is.
    pub kind: Kind,
    /// The connection, as if nothing had been read from it.
    pub connection: Connection,
}

/// Reads until the kind is known. A whole request usually comes at once, so this takes no further system call.
pub async fn read(mut stream: TcpStream) -> std::io::Result<First> {
    let mut read = BytesMut::with_capacity(ROOM);
    let kind = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(kind) = kind_of(&read) {
            break kind;
        }
    };
    let mut connection = Connection::new(stream);
    connection.rewind(Bytes::from(read));
    Ok(First { kind, connection })
}

/// Enough for most requests and for every ClientHello of today.
const ROOM: usize = 4096;

/// The first byte of a TLS record with a handshake message (RFC 8446 section 5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;

/// `None` while more bytes are needed.
fn kind_of(bytes: &[u8]) -> Option<Kind> {
    const CONNECT: &[u8] = b"CONNECT ";
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Some(Kind::Tls);
    }
    let length = bytes.len().min(CONNECT.len());
    if bytes[..length] != CONNECT[..length] {
        return Some(Kind::Request);
    }
    (length == CONNECT.len()).then_some(Kind::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_and_no_more_than_needed() {
        assert_eq!(kind_of(b"\x16"), Some(Kind::Tls));
        assert_eq!(kind_of(b"G"), Some(Kind::Request));
        assert_eq!(kind_of(b"CONNECT a:443 HTTP/1.1\r\n"), Some(Kind::Connect));
        for undecided in ["C", "CONN", "CONNECT"] {
            assert_eq!(kind_of(undecided.as_bytes()), None, "{undecided}");
        }
        assert_eq!(kind_of(b"CONNECTED /"), Some(Kind::Request));
        assert_eq!(kind_of(b"COPY /"), Some(Kind::Request));
    }
}
