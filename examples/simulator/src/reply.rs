//! Building replies, reading requests' bodies, and knowing whether a reply got out.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::state::Delivery;

/// The body of a reply, whole or still to be produced.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// What a request is answered with.
pub(crate) type Reply = Response<Body>;
/// Feeds the body of a streaming reply. Sending fails once the client has gone.
pub(crate) type BodySender = Sender<Bytes, io::Error>;

/// No endpoint that reads its body at once needs more.
const BODY_LIMIT: usize = 1 << 20;

/// A reply with a JSON body.
pub(crate) fn json(status: u16, value: &Value) -> Reply {
    whole(status, "application/json", value.to_string())
}

/// A reply with a complete body.
pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(body.into()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    with_header(reply, CONTENT_TYPE.as_str(), content_type)
}

/// A reply without a body.
pub(crate) fn empty(status: u16) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    reply
}

/// A redirect.
pub(crate) fn redirect(status: u16, to: &str) -> Reply {
    with_header(empty(status), LOCATION.as_str(), to)
}

/// A reply whose body a task writes, each piece sent at once.
pub(crate) fn streaming(content_type: &str) -> (Reply, BodySender) {
    let (sender, channel) = Channel::new(1);
    let reply = Response::new(channel.boxed_unsync());
    (with_header(reply, CONTENT_TYPE.as_str(), content_type), sender)
}

/// The reply with one more header; left out if HTTP does not allow it.
pub(crate) fn with_header(mut reply: Reply, name: &str, value: &str) -> Reply {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
    {
        reply.headers_mut().append(name, value);
    }
    reply
}

/// A complete body.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The whole body of a request; none if it is too long or broken.
pub(crate) async fn read<B>(body: B) -> Option<Bytes>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = Limited::new(body, BODY_LIMIT).collect().await.ok()?;
    Some(body.to_bytes())
}

/// Takes in what the client is still sending, so that it gets to read its refusal. Closing a
/// socket with unread bytes would reset it.
pub(crate) async fn drain<B>(body: B)
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let _ = tokio::time::timeout(Duration::from_millis(100), read(body)).await;
}

/// Has the ledger told when the whole reply was handed to the network.
pub(crate) fn watched(mut reply: Reply) -> Reply {
    match reply.extensions_mut().remove::<Delivery>() {
        None => reply,
        Some(delivery) => reply.map(|inner| WatchedBody { inner, delivery }.boxed_unsync()),
    }
}

struct WatchedBody {
    inner: Body,
    delivery: Delivery,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        let ended = match &frame {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.inner.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended {
            self.delivery.succeeded();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
