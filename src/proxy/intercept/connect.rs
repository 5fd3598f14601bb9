//! `CONNECT` (RFC 9110 section 9.3.6): the request for a tunnel, taken apart and answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::HeaderName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::connection::Connection;
use super::super::egress::Refusal;
use super::super::egress::is_handle_shaped;
use crate::base::host_name;
use crate::base::problem_details::{CONTENT_TYPE, ProblemDetails};
use crate::base::secret::Secret;

/// The longest head of a request for a tunnel, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// A tunnel that somebody asks for.
pub struct ConnectRequest {
    /// The host, in the one way in which it is written here, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The credential for the proxy, if there is one.
    pub credential: Option<Credential>,
}

/// A credential for the proxy (RFC 9110 section 11.7).
pub enum Credential {
    /// A handle, or what looks like one.
    Handle(Secret),
    /// Something that cannot be one.
    Other,
}

/// What becomes of a tunnel.
pub enum Verdict {
    /// Its TLS ends here.
    Terminate {
        /// The handle that was presented; each request inside is judged by it anew.
        handle: Option<Secret>,
    },
    /// It is passed on unseen.
    PassOn,
}

/// Reads the head; what follows it belongs to the tunnel, and the connection begins with that.
pub async fn read_head(connection: &mut Connection) -> std::io::Result<Bytes> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if connection.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let end = memchr::memmem::find(&read, b"\r\n\r\n").map(|at| at + 4);
        // A head without an end is judged, and refused, as it is.
        if let Some(end) = end.or((read.len() > LONGEST_HEAD).then_some(read.len())) {
            let head = read.split_to(end).freeze();
            connection.rewind(read.freeze());
            return Ok(head);
        }
    }
}

/// Takes the head apart.
pub fn parse(head: &[u8]) -> Result<ConnectRequest, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let is_whole = matches!(request.parse(head), Ok(httparse::Status::Complete(length)) if length == head.len());
    let (Some("CONNECT"), Some(target), true) = (request.method, request.path, is_whole) else {
        return Err(Refusal::BadConnect("it is not well-formed"));
    };
    let (host, port) = host_name::with_port(target, None)
        .map_err(|_| Refusal::BadConnect("what it names is not a host and a port beyond doubt"))?;
    let mut credentials = Vec::new();
    for header in request.headers.iter() {
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" | "transfer-encoding" => {
                return Err(Refusal::BadConnect("it announces a body, which it cannot have"));
            }
            "proxy-authorization" => credentials.push(credential(header.value)),
            "host" if !names_the_same(header.value, &host, port) => {
                return Err(Refusal::BadConnect("its Host header names another host than it asks for"));
            }
            _ => {}
        }
    }
    if credentials.len() > 1 {
        return Err(Refusal::BadConnect("it holds two credentials"));
    }
    Ok(ConnectRequest { host, port, credential: credentials.pop() })
}

/// Some clients leave the port out.
fn names_the_same(value: &[u8], host: &str, port: u16) -> bool {
    let named = std::str::from_utf8(value).ok().and_then(|value| host_name::with_port(value.trim(), Some(port)).ok());
    named.is_some_and(|named| named == (host.to_owned(), port))
}

/// `Basic HANDLE:`, `Basic anything:HANDLE` or `Bearer HANDLE`.
pub fn credential(value: &[u8]) -> Credential {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    let Some((scheme, credential)) = text.split_once(' ') else { return Credential::Other };
    let credential = credential.trim();
    let found = if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(credential).ok().and_then(|pair| String::from_utf8(pair).ok());
        pair.and_then(|pair| pair.split(':').find(|half| is_handle_shaped(half.as_bytes())).map(str::to_owned))
    } else {
        (scheme.eq_ignore_ascii_case("bearer") && is_handle_shaped(credential.as_bytes()))
            .then(|| credential.to_owned())
    };
    found.map_or(Credential::Other, |handle| Credential::Handle(Secret::new(handle)))
}

/// Says that the tunnel is there.
pub async fn establish(connection: &mut Connection) -> std::io::Result<()> {
    connection.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    connection.flush().await
}

/// Says why there is none, and ends the connection.
pub async fn answer(
    connection: &mut Connection,
    problem: &ProblemDetails,
    headers: &[(HeaderName, String)],
) -> std::io::Result<()> {
    let status = http::StatusCode::from_u16(problem.status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let body = problem.to_json();
    let mut head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         connection: close\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused"),
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(&body).await?;
    connection.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::handle::MARKER;

    fn refused(lines: &str) -> Option<Refusal> {
        parse(format!("{lines}\r\n\r\n").as_bytes()).err()
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let request = parse(b"CONNECT API.github.com.:443 HTTP/1.1\r\nHost: api.github.com:443\r\n\r\n");
        let request = request.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!((request.host.as_str(), request.port), ("api.github.com", 443));
        assert!(request.credential.is_none());
        assert!(parse(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n").is_ok());
    }

    #[test]
    fn what_is_odd_about_it_is_refused() {
        for lines in [
            "CONNECT a.example HTTP/1.1",
            "CONNECT https://a.example:443 HTTP/1.1",
            "CONNECT a.example:443@evil.example:443 HTTP/1.1",
            "CONNECT /a HTTP/1.1",
            "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443",
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:444",
            "CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 0",
            "CONNECT a.example:443 HTTP/1.1\r\nTransfer-Encoding: chunked",
            "CONNECT a.example:443 HTTP/1.1\r\nProxy-Authorization: Basic YQ==\r\nProxy-Authorization: Basic YQ==",
            "CONNECT a.example:443 HTTP/1.1\r\nbad name: x",
            "CONNECT a.example:443 HTTP/9",
        ] {
            assert!(matches!(refused(lines), Some(Refusal::BadConnect(_))), "{lines}");
        }
    }

    #[test]
    fn a_handle_is_found_in_every_form_of_credential() {
        let handle = format!("{MARKER}abc");
        let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
        for value in [
            format!("Bearer {handle}"),
            basic(format!("{handle}:")),
            basic(format!("x:{handle}")),
            basic(handle.clone()),
        ] {
            let found = credential(value.as_bytes());
            assert!(matches!(&found, Credential::Handle(found) if found.expose() == handle), "{value}");
        }
        for value in ["Basic !!", "Bearer x", "", "Digest a", &basic("user:password".to_owned())] {
            assert!(matches!(credential(value.as_bytes()), Credential::Other), "{value}");
        }
    }
}
