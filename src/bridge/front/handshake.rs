//! The older era: `initialize` begins a session, GET listens in it, DELETE ends it. A session lives on where the child
//! does not.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;

use super::{
    Answered, Bridge, Called, Refused, SESSION_ID, VERSION, accepts, key, largest_message, meta_of, object_of,
    params_of,
};
use crate::base::random;
use crate::bridge::answer;
use crate::bridge::audience::Audience;
use crate::bridge::era::{Era, Level, Opening, Spoken};
use crate::bridge::message::{self, LONGEST_BATCH, Message, Object, Outcome, raw};
use crate::bridge::multiplexer::{Asking, ClientRequest, Multiplexer};
use crate::bridge::refusal::Refusal;

/// The revision that has batches, and that is spoken by whoever names none.
const WITH_BATCHES: &str = "2025-03-26";

/// What becomes of a request, which may be one of several.
enum Part<Later> {
    /// It is answered at once.
    Now(Vec<u8>),
    /// By a child.
    Later(Later),
}

impl Bridge {
    pub(super) async fn handshake_post(
        &self,
        called: &Called,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answered, Refused> {
        if body.trim_ascii_start().starts_with(b"[") {
            return self.batch(called, headers, body).await.map(Answered::Now);
        }
        let object = object_of(body)?;
        match Message::of(&object) {
            Some(Message::Request { id, method, params }) => {
                let answered = async {
                    if method == "initialize" {
                        return self.initialize(called, headers, id, params).await.map(Answered::Now);
                    }
                    let session = session(headers)?;
                    Ok(match self.handshake_request(called, session, id, &method, params).await? {
                        Part::Now(text) => Answered::Now(answer::json(StatusCode::OK, text)),
                        Part::Later(asking) => Answered::Later { asking, id: id.to_owned(), era: Era::Handshake },
                    })
                };
                answered.await.map_err(|refusal| refusal.for_request(id))
            }
            Some(Message::Notification { method, params }) => {
                self.handshake_notification(called, session(headers)?, &method, params).await?;
                Ok(Answered::Now(answer::empty(StatusCode::ACCEPTED)))
            }
            Some(Message::Response { .. }) => Err(NOTHING_ASKED.into()),
            None => Err(Refusal::NotAMessage("The body is no JSON-RPC 2.0 message.").into()),
        }
    }

    async fn initialize(
        &self,
        called: &Called,
        headers: &HeaderMap,
        id: &RawValue,
        params: Option<&RawValue>,
    ) -> Result<Response<Body>, Refusal> {
        if headers.contains_key(SESSION_ID) {
            return Err(Refusal::NotAMessage("The session was initialized before."));
        }
        let params = params_of(params)?;
        let version = params.as_ref().and_then(|params| params.string("protocolVersion"));
        let version = version.ok_or(Refusal::Parameter("params.protocolVersion is missing."))?;
        let lease = self.child(called, Era::Handshake).await?;
        let introduction = lease.multiplexer().introduction();
        let result = introduction.map(|introduction| introduction.initialize_result(&version)).unwrap_or_default();
        let session = random::secret(self.random.as_ref());
        let subject = &called.grant.grant.authorization.user.subject;
        self.sessions.begin(&called.server.name, session.expose().as_bytes(), subject).await;
        let mut response = answer::json(StatusCode::OK, message::response(id, Outcome::Result(&result)));
        if let Ok(mut value) = HeaderValue::from_str(session.expose()) {
            value.set_sensitive(true);
            response.headers_mut().insert(SESSION_ID, value);
        }
        Ok(response)
    }

    async fn handshake_request(
        &self,
        called: &Called,
        session: &str,
        id: &RawValue,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Part<Asking>, Refusal> {
        let object = params_of(params)?;
        meta_of(object.as_ref())?;
        let parameter = |name: &str| object.as_ref().and_then(|params| params.string(name));
        let done = || Ok(Part::Now(message::response(id, Outcome::Result(&raw(&json!({}))))));
        // Whether we are there is what is asked, and no child need be started for that.
        if method == "ping" {
            return done();
        }
        let lease = self.child(called, Era::Handshake).await?;
        let child = Arc::clone(lease.multiplexer());
        let audience = child.audience();
        let is_modern = child.introduction().is_some_and(|introduction| introduction.era == Era::Modern);
        let mut changed = None;
        match (method, parameter("uri")) {
            ("logging/setLevel", _) => {
                let level = parameter("level").as_deref().and_then(Level::parse);
                let level = level.ok_or(Refusal::Parameter("params.level is none of those of RFC 5424."))?;
                audience.set_level(session, level);
                if is_modern {
                    return done();
                }
                // All sessions share what the child sends: it is told the least that one of them asked for.
                let level = child.note_level(level);
                changed = Some(raw(&json!({ "level": level.name() })));
            }
            ("resources/subscribe", Some(resource)) => {
                audience.subscribe(session, resource.clone(), true)?;
                if is_modern {
                    child.watch(None);
                    return done();
                }
                // The answer of the child is the client's.
                child.watch(Some((&resource, true)));
            }
            ("resources/unsubscribe", Some(resource)) => {
                audience.subscribe(session, resource.clone(), false)?;
                if is_modern || audience.resources().contains(&resource) {
                    child.watch(None);
                    return done();
                }
                child.watch(Some((&resource, false)));
            }
            _ => {}
        }
        let request = ClientRequest {
            id: id.to_owned(),
            method: method.to_owned(),
            era: Era::Handshake,
            level: audience.level(session),
            session: Some(session.to_owned()),
        };
        Ok(Part::Later(Multiplexer::ask(lease, request, changed.as_deref().or(params))?))
    }

    async fn handshake_notification(
        &self,
        called: &Called,
        session: &str,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<(), Refusal> {
        match method {
            // The child was initialized by us, was promised no roots, and asked for nothing that could make progress.
            "notifications/initialized" | "notifications/roots/list_changed" | "notifications/progress" => {}
            "notifications/cancelled" => {
                let params = params_of(params)?;
                let member = |name: &str| params.as_ref().and_then(|params| params.get(name));
                if let (Some(child), Some(id)) = (self.audience(called).child(), member("requestId")) {
                    child.cancel_of_session(session, id, member("reason"));
                }
            }
            _ => {
                let lease = self.child(called, Era::Handshake).await?;
                lease.multiplexer().tell(method, params).await?;
            }
        }
        Ok(())
    }

    /// Several messages at once, which one revision had.
    async fn batch(&self, called: &Called, headers: &HeaderMap, body: &[u8]) -> Result<Response<Body>, Refused> {
        let session = session(headers)?;
        let version = headers.get(VERSION).map_or(WITH_BATCHES, |version| version.to_str().unwrap_or_default());
        if version != WITH_BATCHES {
            return Err(Refusal::NotAMessage("This revision of the protocol has no batches.").into());
        }
        let texts: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| Refusal::NotJson)?;
        if texts.is_empty() || texts.len() > LONGEST_BATCH {
            return Err(Refusal::NotAMessage("A batch has between 1 and 64 messages.").into());
        }
        let objects: Option<Vec<_>> = texts.iter().map(|text| Object::parse(text.get().as_bytes())).collect();
        let objects = objects.unwrap_or_default();
        // All of it is understood before any of it is done.
        let messages: Option<Vec<_>> = objects.iter().map(Message::of).collect();
        let messages = messages.filter(|messages| messages.len() == texts.len());
        let messages = messages.ok_or(Refusal::NotAMessage("A part of the batch is no JSON-RPC 2.0 message."))?;
        for message in &messages {
            match message {
                Message::Request { method, .. } if method == "initialize" => {
                    return Err(Refusal::NotAMessage("initialize must not be part of a batch.").into());
                }
                Message::Response { .. } => return Err(NOTHING_ASKED.into()),
                Message::Request { .. } | Message::Notification { .. } => {}
            }
        }
        let mut answers = Vec::new();
        for message in messages {
            match message {
                Message::Request { id, method, params } => {
                    // One after the other, so that the child is asked in this order.
                    let asked = self.handshake_request(called, session, id, &method, params).await;
                    let handed_on = match asked {
                        Ok(Part::Later(asking)) => asking.hand_on().await.map(Part::Later).map_err(Refusal::from),
                        Ok(Part::Now(text)) => Ok(Part::Now(text)),
                        Err(refusal) => Err(refusal),
                    };
                    answers.push(match handed_on {
                        Ok(Part::Later(running)) => {
                            answer::part_of_running(running, id.to_owned(), Arc::clone(&self.clock))
                        }
                        Ok(Part::Now(text)) => answer::part_now(&text),
                        Err(refusal) => answer::part_now(&refusal.message(Some(id))),
                    });
                }
                Message::Notification { method, params } => {
                    self.handshake_notification(called, session, &method, params).await?;
                }
                Message::Response { .. } => {}
            }
        }
        if answers.is_empty() {
            return Ok(answer::empty(StatusCode::ACCEPTED));
        }
        Ok(answer::of_batch(answers))
    }

    /// The stream of a session. It cannot be resumed, so what a `Last-Event-ID` says is left unread.
    pub(super) fn handshake_get(&self, called: &Called, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        if !accepts(headers, "text/event-stream") {
            return Err(Refusal::NotAcceptable.into());
        }
        self.may_stream()?;
        let open = self.audience(called).open_session(session(headers)?, largest_message(called));
        let open = open.ok_or(Refusal::TooManyStreams)?;
        Ok(answer::of_stream(open, Arc::clone(&self.clock)))
    }

    pub(super) async fn handshake_delete(
        &self,
        called: &Called,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Refused> {
        let session = session(headers)?;
        self.sessions.end(&called.server.name, session.as_bytes()).await;
        let audience = self.audience(called);
        audience.end_session(session);
        if let Some(child) = audience.child() {
            child.end_session(session);
        }
        drop(audience);
        self.connector.audiences().sweep();
        Ok(answer::empty(StatusCode::OK))
    }

    /// Who listens to the child of this client; it need not run.
    fn audience(&self, called: &Called) -> Arc<Audience> {
        let opening = match self.connector.eras().of(&called.server.name) {
            Some(Spoken::Both) => Opening::Handshake,
            _ => Opening::Newest,
        };
        self.connector.audiences().of(&key(called, opening))
    }
}

/// The session that a request names; that it is its user's was checked before it came here.
fn session(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(SESSION_ID).iter();
    let session = values.next().and_then(|value| value.to_str().ok()).ok_or(Refusal::NoSession)?;
    match values.next() {
        Some(_) => Err(Refusal::NotAMessage("The request names two sessions.")),
        None => Ok(session),
    }
}

const NOTHING_ASKED: Refusal = Refusal::NotAMessage("Nothing was asked of this client that it could answer.");
