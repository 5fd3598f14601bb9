//! Answers over HTTP: one JSON message, or a stream of events that ends with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::value::RawValue;
use tokio::sync::oneshot::error::RecvError;

use super::audience::Open;
use super::era::Era;
use super::multiplexer::{Answer, Failure, Running};
use super::refusal::{Refusal, status_of_error};
use crate::base::clock::Clock;

/// A stream on which nothing happens says so at this interval: connections that are quiet for long are closed on the way,
/// and whether the grant is still good is looked at with each piece that is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A JSON message.
pub fn json(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// No body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A refusal.
pub fn refusal(refusal: &Refusal, id: Option<&RawValue>) -> Response<Body> {
    let mut response = json(refusal.status(), refusal.message(id));
    if let Some(wait) = refusal.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if let Refusal::Method { allowed } = refusal {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

/// What happens next in a request under way.
enum Next {
    Note(Vec<u8>),
    Answered(Result<Result<Answer, Failure>, RecvError>),
    Nothing,
}

async fn next(running: &mut Running, clock: &dyn Clock) -> Next {
    tokio::select! {
        // What was said before the answer comes before it.
        biased;
        Some(note) = running.notes.recv() => Next::Note(note),
        answered = &mut running.answer => Next::Answered(answered),
        () = clock.sleep(KEEP_ALIVE) => Next::Nothing,
    }
}

/// The answer to a request: JSON where it is the first that comes, otherwise a stream.
pub async fn of_request(mut running: Running, id: Box<RawValue>, era: Era, clock: Arc<dyn Clock>) -> Response<Body> {
    let first = match next(&mut running, clock.as_ref()).await {
        Next::Answered(Ok(Ok(answer))) => {
            let status = match (era, answer.error) {
                (Era::Modern, Some(code)) => status_of_error(code),
                _ => StatusCode::OK,
            };
            return json(status, answer.text);
        }
        Next::Answered(Ok(Err(failure))) => return refusal(&Refusal::Failed(failure), Some(&id)),
        // Its client cancelled it: there is no answer (cancellation).
        Next::Answered(Err(_)) => return events(stream::empty()),
        Next::Note(note) => event(&note),
        Next::Nothing => comment(),
    };
    events(of_running(Some(first), running, id, clock))
}

/// What happens in a request under way, as events.
fn of_running(
    first: Option<Bytes>,
    running: Running,
    id: Box<RawValue>,
    clock: Arc<dyn Clock>,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((first, Some(running)), move |(first, running)| {
        let (id, clock) = (id.clone(), Arc::clone(&clock));
        async move {
            if let Some(first) = first {
                return Some((first, (None, running)));
            }
            let mut running = running?;
            match next(&mut running, clock.as_ref()).await {
                Next::Note(note) => Some((event(&note), (None, Some(running)))),
                Next::Nothing => Some((comment(), (None, Some(running)))),
                Next::Answered(Ok(Ok(answer))) => Some((event(&answer.text), (None, None))),
                Next::Answered(Ok(Err(failure))) => {
                    Some((event(&Refusal::Failed(failure).message(Some(&id))), (None, None)))
                }
                Next::Answered(Err(_)) => None,
            }
        }
    })
}

/// A stream that lasts until its client, or the bridge, has enough of it.
pub fn of_stream(open: Open, clock: Arc<dyn Clock>) -> Response<Body> {
    // So that the client knows that it is open, before anything happens.
    let first = VecDeque::from([comment()]);
    events(stream::unfold((first, open), move |(mut first, mut open)| {
        let clock = Arc::clone(&clock);
        async move {
            if let Some(first_bytes) = first.pop_front() {
                return Some((first_bytes, (first, open)));
            }
            let message = tokio::select! {
                biased;
                message = open.messages.recv() => event(&message?),
                () = clock.sleep(KEEP_ALIVE) => comment(),
            };
            Some((message, (first, open)))
        }
    }))
}

/// What is answered to one of several requests that came together.
pub type Part = BoxStream<'static, Bytes>;

/// One that is answered already.
pub fn part_now(text: &[u8]) -> Part {
    Box::pin(stream::iter([event(text)]))
}

/// One that is under way.
pub fn part_of_running(running: Running, id: Box<RawValue>, clock: Arc<dyn Clock>) -> Part {
    Box::pin(of_running(None, running, id, clock))
}

/// The answers to several requests that came together, in the order in which they are ready.
pub fn of_batch(parts: Vec<Part>) -> Response<Body> {
    events(stream::select_all(parts))
}

fn events(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    use futures_util::StreamExt;
    let mut response = Response::new(Body::from_stream(stream.map(Ok::<_, std::convert::Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies in front would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A message as an event: it has no line breaks.
fn event(message: &[u8]) -> Bytes {
    [b"event: message\ndata: ".as_slice(), message, b"\n\n"].concat().into()
}

fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}
