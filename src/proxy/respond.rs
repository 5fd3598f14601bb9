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
