//! Doing what a fault says, around the work of an endpoint.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value};

use crate::clock::sleep;
use crate::connection::Cutter;
use crate::faults::FaultKind;
use crate::reply::{Reply, empty, full, json, redirect, whole, with_header};
use crate::state::Delivery;
use crate::token_reply;

/// How long the sent part of a cut reply has to reach the client before the reset.
const BEFORE_RESET: Duration = Duration::from_millis(30);

/// Runs `commit` unless the fault forbids it, and spoils the reply as the fault says.
/// `refuse` builds an OAuth error in the profile's shape: error, description, status.
pub(crate) async fn around(
    fault: Option<FaultKind>,
    cutter: &Cutter,
    refuse: impl FnOnce(&str, Option<&str>, Option<u16>) -> Reply,
    commit: impl Future<Output = Reply> + Send + 'static,
) -> Reply {
    let Some(fault) = fault else {
        return detached(Duration::ZERO, commit).await;
    };
    match fault {
        FaultKind::ResetBeforeReading | FaultKind::ResetNotCommitted => match cutter.cut_and_vanish().await {},
        FaultKind::Status { status, body, content_type, headers } => {
            let content_type = content_type.as_deref().unwrap_or("text/plain");
            let reply = whole(status, content_type, body.unwrap_or_default());
            headers.iter().fold(reply, |reply, (name, value)| with_header(reply, name, value))
        }
        FaultKind::Redirect { to, status } => redirect(status, &to),
        FaultKind::Error { error, description, status } => refuse(&error, description.as_deref(), status),
        FaultKind::DelayBeforeCommit { ms } => detached(Duration::from_millis(ms), commit).await,
        after_commit => {
            let reply = detached(Duration::ZERO, commit).await;
            spoil(after_commit, reply, cutter).await
        }
    }
}

/// Works in a task of its own: a client that goes away does not stop a provider.
async fn detached(delay: Duration, work: impl Future<Output = Reply> + Send + 'static) -> Reply {
    let task = tokio::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        work.await
    });
    match task.await {
        Ok(reply) => reply,
        Err(_panicked) => empty(500),
    }
}

/// Changes the reply to something already done.
async fn spoil(fault: FaultKind, reply: Reply, cutter: &Cutter) -> Reply {
    match fault {
        FaultKind::CommitThenReset => {
            drop(reply);
            match cutter.cut_and_vanish().await {}
        }
        FaultKind::CommitThenResetAfterHeaders => broken_off(reply, cutter, |_| 0).await,
        FaultKind::CommitHalfBody => broken_off(reply, cutter, |length| length / 2).await,
        FaultKind::CommitThenStatus { status } => json(status, &serde_json::json!({"error": "server_error"})),
        FaultKind::DelayMs { ms } => {
            sleep(Duration::from_millis(ms)).await;
            reply
        }
        FaultKind::Drip { bytes_per_second } => drip(reply, bytes_per_second).await,
        FaultKind::WrongContentLength => too_short(reply).await,
        FaultKind::HugeBody { bytes } => {
            change_fields(reply, |fields| {
                let padding = Value::String("x".repeat(bytes));
                let rest = std::mem::take(fields);
                fields.insert("padding".to_owned(), padding);
                fields.extend(rest);
            })
            .await
        }
        FaultKind::BodyPatch { set, remove } => {
            change_fields(reply, |fields| {
                fields.retain(|name, _| !remove.contains(name));
                fields.extend(set);
            })
            .await
        }
        // Handled before the commit.
        FaultKind::ResetBeforeReading
        | FaultKind::ResetNotCommitted
        | FaultKind::Status { .. }
        | FaultKind::Redirect { .. }
        | FaultKind::Error { .. }
        | FaultKind::DelayBeforeCommit { .. } => reply,
    }
}

/// Sends the head and the first bytes, then resets the connection.
async fn broken_off(reply: Reply, cutter: &Cutter, keep: impl FnOnce(usize) -> usize) -> Reply {
    let (mut parts, body) = reply.into_parts();
    let body = collected(body).await;
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let start = body.slice(..keep(body.len()));
    let (mut sender, channel) = Channel::new(1);
    let cutter = cutter.clone();
    tokio::spawn(async move {
        // Fails if the client has left; then there is nothing to reset either.
        let _ = sender.send_data(start).await;
        sleep(BEFORE_RESET).await;
        cutter.cut();
        // Ending the body is left to the reset.
        sleep(BEFORE_RESET).await;
    });
    Reply::from_parts(parts, channel.boxed_unsync())
}

/// Announces more than it sends. The client cannot have got it all, so it counts as lost.
async fn too_short(reply: Reply) -> Reply {
    let (mut parts, body) = reply.into_parts();
    let body = collected(body).await;
    parts.extensions.remove::<Delivery>();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len() + 10));
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        let _ = sender.send_data(body).await;
        sleep(BEFORE_RESET).await;
    });
    Reply::from_parts(parts, channel.boxed_unsync())
}

/// Sends the body slowly.
async fn drip(reply: Reply, bytes_per_second: u64) -> Reply {
    let (mut parts, body) = reply.into_parts();
    let body = collected(body).await;
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let rate = bytes_per_second.max(1);
    let step = usize::try_from(rate.div_ceil(10)).unwrap_or(usize::MAX);
    let pause = Duration::from_millis((1000 * step as u64 / rate).max(1));
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        let mut rest = body;
        while !rest.is_empty() {
            sleep(pause).await;
            let piece = rest.split_to(step.min(rest.len()));
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    });
    Reply::from_parts(parts, channel.boxed_unsync())
}

/// Changes the fields of a JSON or form-encoded reply; others stay as they are.
async fn change_fields(reply: Reply, change: impl FnOnce(&mut Map<String, Value>)) -> Reply {
    let (mut parts, body) = reply.into_parts();
    let body = collected(body).await;
    let content_type = parts.headers.get(CONTENT_TYPE);
    let is_form = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/x-"));
    let fields = match is_form {
        true => Some(
            url::form_urlencoded::parse(&body)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect(),
        ),
        false => serde_json::from_slice::<Map<String, Value>>(&body).ok(),
    };
    let body = match fields {
        None => body,
        Some(mut fields) => {
            change(&mut fields);
            match is_form {
                true => token_reply::form(&fields).into(),
                false => Value::Object(fields).to_string().into(),
            }
        }
    };
    parts.headers.remove(CONTENT_LENGTH);
    Reply::from_parts(parts, full(body))
}

async fn collected(body: crate::reply::Body) -> Bytes {
    match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    }
}
