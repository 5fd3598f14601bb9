//! Answers of our own on a Pingora session.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};

/// Sends a problem.
pub async fn problem(
    session: &mut Session,
    problem: &ProblemDetails,
    headers: &[(HeaderName, String)],
) -> pingora::Result<()> {
    let body = Bytes::from(problem.to_json());
    let mut header = ResponseHeader::build(problem.status, Some(4 + headers.len()))?;
    header.insert_header(CONTENT_TYPE, PROBLEM_JSON)?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.insert_header(CONTENT_LENGTH, body.len())?;
    for (name, value) in headers {
        header.insert_header(name.clone(), value.as_str())?;
    }
    // A body that nobody reads would be taken for the next request: then the connection ends with this answer.
    if !session.as_downstream_mut().is_body_done() {
        session.as_downstream_mut().set_keepalive(None);
    }
    let is_head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(header), is_head).await?;
    if !is_head {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Sends a short text.
pub async fn text(session: &mut Session, content_type: &'static str, text: String) -> pingora::Result<()> {
    whole(session, 200, vec![(CONTENT_TYPE, content_type.to_owned())], text.into_bytes()).await
}

/// Sends an answer that is there as a whole.
pub async fn whole(
    session: &mut Session,
    status: u16,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
) -> pingora::Result<()> {
    let body = Bytes::from(body);
    let mut header = ResponseHeader::build(status, Some(1 + headers.len()))?;
    for (name, value) in headers {
        header.insert_header(name, value)?;
    }
    header.insert_header(CONTENT_LENGTH, body.len())?;
    if !session.as_downstream_mut().is_body_done() {
        session.as_downstream_mut().set_keepalive(None);
    }
    session.write_response_header(Box::new(header), false).await?;
    session.write_response_body(Some(body), true).await
}

/// Sends headers and no body.
pub async fn nothing(session: &mut Session, headers: &[(HeaderName, String)]) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(204, Some(headers.len()))?;
    for (name, value) in headers {
        header.insert_header(name.clone(), value.as_str())?;
    }
    if !session.as_downstream_mut().is_body_done() {
        session.as_downstream_mut().set_keepalive(None);
    }
    session.write_response_header(Box::new(header), true).await
}
