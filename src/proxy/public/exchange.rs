//! Bodies in and answers out, where we answer ourselves.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{Method, Response, Version};
use http_body_util::BodyExt;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tokio::sync::watch;
use tracing::warn;

use crate::base::byte_budget::Room;
use crate::model::names::Subject;
use crate::proxy::ingress::Admitted;

/// Why a connection is cut whose grant has ended.
pub const GRANT_IS_OVER: &str = "the grant is over";

/// Why a body is not there.
pub enum Unread {
    /// It is too large or too slow.
    TooLarge,
    /// There is no room for it.
    NoRoom,
}

/// The whole body. What its sender announces is to find room before any of it is read, and what is not announced as it comes.
pub async fn read_body(
    session: &mut Session,
    largest: usize,
    deadline: Duration,
    mut room: Option<&mut Room<Subject>>,
) -> pingora::Result<Result<Bytes, Unread>> {
    let mut has_room = |bytes: usize| room.as_mut().is_none_or(|room| room.reach(bytes).is_ok());
    let announced = announced_length(session).min(largest);
    if !has_room(announced) {
        return Ok(Err(Unread::NoRoom));
    }
    if session.req_header().headers.contains_key(EXPECT) {
        session.as_downstream_mut().write_continue_response().await?;
    }
    // All of it at once: a buffer that grows is twice as large in the end.
    let mut body = BytesMut::with_capacity(announced);
    let read = async {
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            let length = body.len() + chunk.len();
            if length > largest {
                return Ok::<_, Box<Error>>(Err(Unread::TooLarge));
            }
            if !has_room(length) {
                return Ok(Err(Unread::NoRoom));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Ok(()))
    };
    match tokio::time::timeout(deadline, read).await {
        Ok(complete) => Ok(complete?.map(|()| body.freeze())),
        Err(_) => Ok(Err(Unread::TooLarge)),
    }
}

fn announced_length(session: &Session) -> usize {
    let value = session.req_header().headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Sends an answer of our own, which is there already.
pub async fn write_response(
    session: &mut Session,
    response: axum::response::Response,
    is_head: bool,
) -> pingora::Result<()> {
    let body = write_head(session, response, is_head).await?;
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

/// Sends an answer piece by piece, for as long as its client is there and its grant is good.
pub async fn stream_response(
    session: &mut Session,
    response: Response<Body>,
    admitted: &Admitted,
    mut ends: watch::Receiver<u64>,
) -> pingora::Result<()> {
    let is_head = session.req_header().method == Method::HEAD;
    let mut body = write_head(session, response, is_head).await?;
    if is_head {
        return Ok(());
    }
    loop {
        if admitted.grant().has_ended() {
            return Err(Error::new(ErrorType::Custom(GRANT_IS_OVER)));
        }
        let frame = tokio::select! {
            // Of what was ready in this very moment nothing is sent.
            biased;
            _ = ends.changed() => continue,
            gone = gone(session) => return Err(gone),
            frame = body.frame() => frame,
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    session.write_response_body(Some(data), false).await?;
                }
            }
            Some(Err(_)) => return Err(Error::new(ErrorType::InternalError)),
            None => return session.write_response_body(None, true).await,
        }
    }
}

/// Completes when the client hangs up, or says something that nobody asked it to.
pub async fn gone(session: &mut Session) -> Box<Error> {
    loop {
        match session.as_downstream_mut().read_body_or_idle(true).await {
            Ok(_) => {}
            Err(error) => return error.into_down(),
        }
    }
}

async fn write_head(session: &mut Session, response: axum::response::Response, is_head: bool) -> pingora::Result<Body> {
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
    Ok(body)
}
