//! Which host a TLS client means (RFC 6066 section 3), read before anything is answered.

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::connection::Connection;
use super::first_bytes::TLS_HANDSHAKE;
use crate::base::host_name;

/// What a client said first.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// The name of a host, in the one way in which it is written here.
    Names(String),
    /// No name, or one that is none of a host.
    NamesNobody,
    /// It does not speak TLS.
    NoTls,
}

/// The largest ClientHello that is read: a post-quantum key share makes it about 2 KiB, and TLS allows 64.
const LONGEST: usize = 16 * 1024;

/// Reads the ClientHello, in however many pieces it comes; the connection then begins with it again.
pub async fn read(connection: &mut Connection) -> std::io::Result<Hello> {
    let mut read = BytesMut::with_capacity(4096);
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    let hello = loop {
        if connection.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if read.first() != Some(&TLS_HANDSHAKE) {
            return Ok(Hello::NoTls);
        }
        while seen < read.len() {
            seen += acceptor.read_tls(&mut &read[seen..])?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(host_name::canonical);
                break match name {
                    Some(Ok(name)) => Hello::Names(name),
                    _ => Hello::NamesNobody,
                };
            }
            Ok(None) if read.len() > LONGEST => return Ok(Hello::NoTls),
            Ok(None) => {}
            Err(_) => return Ok(Hello::NoTls),
        }
    };
    connection.rewind(Bytes::from(read));
    Ok(hello)
}

/// The alert `unrecognized_name`, fatal (RFC 6066 section 3, RFC 8446 section 6).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Says that no certificate will be shown for that host.
pub async fn refuse(connection: &mut Connection) {
    if connection.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
        let _ = connection.shutdown().await;
    }
}
