//! The public listener: our own pages and endpoints, an axum router called from Pingora.

use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use http_body_util::BodyExt;
use pingora::http::ResponseHeader;
use pingora::modules::http::HttpModules;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tower::ServiceExt;
use tracing::warn;

use super::respond;
use crate::base::problem_details::ProblemDetails;

/// Forms and JSON of ours are small.
const LARGEST_BODY: usize = 64 * 1024;
/// A whole body must arrive within this time.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The public listener.
pub struct Public {
    portal: Router,
    /// The accepted value of `Host`, where the public URL names this machine: elsewhere DNS and whatever does TLS see to
    /// it that only requests for us arrive.
    loopback_host: Option<String>,
}

impl Public {
    /// Serves `portal`. On loopback, `authority` (host and port of the public URL) must be what callers name.
    pub fn new(portal: Router, authority: String, is_loopback: bool) -> Self {
        Self { portal, loopback_host: is_loopback.then_some(authority) }
    }

    async fn serve(&self, session: &mut Session) -> pingora::Result<()> {
        if let Some(problem) = self.refused(session) {
            return respond::problem(session, &problem, &[]).await;
        }
        let body = match read_body(session).await? {
            Some(body) => body,
            None => {
                let problem = ProblemDetails::new(
                    "body-too-large",
                    413,
                    "Body too large",
                    "The body is larger than 64 KiB, or did not arrive in time.",
                    "send less, or faster",
                );
                return respond::problem(session, &problem, &[]).await;
            }
        };
        let header = session.req_header();
        let mut request = Request::builder().method(header.method.clone()).uri(header.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&header.headers);
        }
        let Ok(request) = request.body(Body::from(body)) else { return Err(Error::new(ErrorType::InvalidHTTPHeader)) };
        let is_head = header.method == Method::HEAD;
        let Ok(response) = self.portal.clone().oneshot(request).await;
        write_response(session, response, is_head).await
    }

    fn refused(&self, session: &Session) -> Option<ProblemDetails> {
        let expected = self.loopback_host.as_ref()?;
        let request = session.req_header();
        let mut hosts = request.headers.get_all(HOST).iter();
        let is_ours = match (hosts.next(), request.uri.authority()) {
            (Some(host), None) => host == expected.as_str(),
            // HTTP/2 names the host in `:authority` (RFC 9113 section 8.3.1).
            (None, Some(authority)) => authority == expected.as_str(),
            (Some(host), Some(authority)) => host == expected.as_str() && authority == expected.as_str(),
            (None, None) => false,
        };
        let is_ours = is_ours && hosts.next().is_none();
        (!is_ours).then(|| {
            ProblemDetails::new(
                "foreign-host",
                403,
                "Foreign Host header",
                "The Host header does not name this listener.",
                format!("use http(s)://{expected}, the public_url of the configuration"),
            )
        })
    }
}

/// The whole body; `None` if it is too large or too slow.
async fn read_body(session: &mut Session) -> pingora::Result<Option<Bytes>> {
    if session.req_header().headers.contains_key(EXPECT) {
        session.as_downstream_mut().write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    let read = async {
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_BODY {
                return Ok::<bool, Box<Error>>(false);
            }
        }
        Ok(true)
    };
    match tokio::time::timeout(BODY_DEADLINE, read).await {
        Ok(complete) => Ok(complete?.then(|| body.freeze())),
        Err(_) => Ok(None),
    }
}

async fn write_response(
    session: &mut Session,
    response: axum::response::Response,
    is_head: bool,
) -> pingora::Result<()> {
    let (parts, body) = response.into_parts();
    let mut header = ResponseHeader::build(parts.status, Some(parts.headers.len() + 1))?;
    for (name, value) in &parts.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    // Without a length the connection could not be used again on HTTP/1.1.
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    let is_h1 = session.req_header().version <= Version::HTTP_11;
    if !has_length && is_h1 && !is_head {
        header.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    session.write_response_header(Box::new(header), is_head).await?;
    if is_head {
        return Ok(());
    }
    let mut body = body;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    session.write_response_body(Some(data), false).await?;
                }
            }
            Err(error) => {
                warn!(operation = "portal", %error, "an answer ended early");
                return Err(Error::new(ErrorType::InternalError));
            }
        }
    }
    session.write_response_body(None, true).await
}

#[async_trait]
impl ProxyHttp for Public {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, _context: &mut ()) -> pingora::Result<bool> {
        self.serve(session).await.map(|()| true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        // Every request was answered above.
        Err(Error::new(ErrorType::InternalError))
    }

    /// Pingora's own line would show the query of a callback: code and state.
    fn suppress_error_log(&self, _session: &Session, _context: &(), _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _context: &()) -> String {
        session.req_header().method.to_string()
    }
}
