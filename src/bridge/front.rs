//! The HTTP side: what a client asks in one request, in whichever era, becomes a message for a child.
//!
//! Who asks, and that they may, was decided before; a request brings along whose it is ([`Called`]).

mod handshake;
mod modern;

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::{self, Body};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::era::{Era, HANDSHAKE, Opening, Spoken};
use super::message::Object;
use super::multiplexer::{Asking, Connector, Failure, Lease};
use super::refusal::Refusal;
use super::{ChildKey, Children, NoChild, answer};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::issuer::{Called, Issuer, MessageRoom};
use crate::model::names::{ServerName, Subject};
use crate::model::server::Upstream;

/// `MCP-Protocol-Version`
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Who remembers whose sessions are. That a session is its subject's was checked before a request gets here.
#[async_trait]
pub trait SessionOwners: Send + Sync {
    /// Takes note of a new one.
    async fn begin(&self, server: &ServerName, id: &[u8], subject: &Subject) -> bool;

    /// Forgets one.
    async fn end(&self, server: &ServerName, id: &[u8]);
}

#[async_trait]
impl SessionOwners for Issuer {
    async fn begin(&self, server: &ServerName, id: &[u8], subject: &Subject) -> bool {
        self.sessions().begin(server, id, subject).await
    }

    async fn end(&self, server: &ServerName, id: &[u8]) {
        self.sessions().end(server, id).await;
    }
}

/// What the bridge is made of.
pub struct Bridge {
    /// Who starts processes.
    pub children: Arc<dyn Children>,
    /// What they were connected with.
    pub connector: Connector,
    /// Whose sessions are.
    pub sessions: Arc<dyn SessionOwners>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for session ids.
    pub random: Arc<dyn Random>,
}

/// What becomes of a request once its body is understood.
enum Answered {
    /// It is answered already.
    Now(Response<Body>),
    /// A child is to be asked.
    Later {
        /// What.
        asking: Asking,
        /// The client's own id.
        id: Box<RawValue>,
        /// In which era it is answered.
        era: Era,
    },
}

/// A request that was refused, with the id of its message where that was read.
struct Refused(Refusal, Option<Box<RawValue>>);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal, None)
    }
}

impl Refusal {
    fn for_request(self, id: &RawValue) -> Refused {
        Refused(self, Some(id.to_owned()))
    }
}

impl From<NoChild> for Refusal {
    fn from(why: NoChild) -> Self {
        Self::NoChild(why)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Bridge {
    /// Ends all streams, and has none opened from here on.
    pub fn end_streams(&self) {
        self.connector.audiences().close();
    }

    /// Whether streams may be opened.
    fn may_stream(&self) -> Result<(), Refusal> {
        if self.connector.audiences().is_closed() { Err(NoChild::Stopping.into()) } else { Ok(()) }
    }

    /// Answers a request. Its body has no more bytes than a message may have; whoever passes it on sees to that.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let room = parts.extensions.remove::<MessageRoom>();
        let Some(called) = parts.extensions.get::<Called>().cloned() else {
            return answer::empty(http::StatusCode::INTERNAL_SERVER_ERROR);
        };
        let Ok(body) = body::to_bytes(body, usize::MAX).await else {
            // Its sender is gone.
            return answer::empty(http::StatusCode::BAD_REQUEST);
        };
        let answered = self.answer(&called, &parts.method, &parts.headers, &body).await;
        // What waits for its child from here on is a line of its own, and to hold both would take twice the memory.
        drop(body);
        let answered = match answered {
            Ok(Answered::Later { asking, id, era }) => self.hand_on(asking, id, era, room).await,
            Ok(Answered::Now(response)) => Ok(response),
            Err(refused) => Err(refused),
        };
        match answered {
            Ok(response) => response,
            Err(Refused(refusal, id)) => {
                let (server, outcome) = (&called.server.name, refusal.slug());
                let subject = &called.grant.grant.authorization.user.subject;
                if refusal.is_our_trouble() {
                    warn!(operation = "bridge", %server, %subject, outcome);
                } else {
                    debug!(operation = "bridge", %server, %subject, outcome);
                }
                answer::refusal(&refusal, id.as_deref())
            }
        }
    }

    /// Asks a child, and answers with what it answers. The room is given back in between: an answer may take long.
    async fn hand_on(
        &self,
        asking: Asking,
        id: Box<RawValue>,
        era: Era,
        room: Option<MessageRoom>,
    ) -> Result<Response<Body>, Refused> {
        let running = asking.hand_on().await.map_err(|failure| Refusal::from(failure).for_request(&id))?;
        drop(room);
        Ok(answer::of_request(running, id, era, Arc::clone(&self.clock)).await)
    }

    async fn answer(
        &self,
        called: &Called,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answered, Refused> {
        let version = headers.get(VERSION).map(|version| version.to_str().unwrap_or_default());
        let is_handshake = version.is_none_or(|version| HANDSHAKE.contains(&version));
        if *method == Method::POST {
            if !is_json(headers) {
                return Err(Refusal::ContentType.into());
            }
            if !accepts(headers, "application/json") || !accepts(headers, "text/event-stream") {
                return Err(Refusal::NotAcceptable.into());
            }
        }
        match (method, is_handshake) {
            // A client of the newer era that forgets the header is told so, rather than that it has no session.
            (&Method::POST, true) if !modern::is_enveloped(body) => self.handshake_post(called, headers, body).await,
            (&Method::POST, _) => self.modern_post(called, headers, body).await,
            (&Method::GET, true) => self.handshake_get(called, headers).map(Answered::Now),
            (&Method::DELETE, true) => self.handshake_delete(called, headers).await.map(Answered::Now),
            (_, true) => Err(Refusal::Method { allowed: "GET, POST, DELETE, OPTIONS" }.into()),
            (_, false) => Err(Refusal::Method { allowed: "POST, OPTIONS" }.into()),
        }
    }

    /// The child for a client of an era: one that speaks that era if there is a choice.
    async fn child(&self, called: &Called, era: Era) -> Result<Lease, NoChild> {
        let eras = self.connector.eras();
        let server = &called.server.name;
        let speaks_both = || eras.of(server) == Some(Spoken::Both);
        if era == Era::Modern || !speaks_both() {
            let lease = self.children.child(&key(called, Opening::Newest), &called.grant).await?;
            // It may have been found out just now.
            let is_other = lease.multiplexer().introduction().is_none_or(|introduction| introduction.era != era);
            if era == Era::Modern || !is_other || !speaks_both() {
                return Ok(lease);
            }
        }
        match self.children.child(&key(called, Opening::Handshake), &called.grant).await {
            // It refused, and so it speaks the newer era alone.
            Err(NoChild::CannotStart { .. }) if !speaks_both() => {
                self.children.child(&key(called, Opening::Newest), &called.grant).await
            }
            other => other,
        }
    }
}

fn key(called: &Called, opening: Opening) -> ChildKey {
    let authorization = &called.grant.grant.authorization;
    ChildKey {
        server: called.server.name.clone(),
        subject: authorization.user.subject.clone(),
        providers: authorization.providers.clone(),
        labels: authorization.labels.clone(),
        opening,
    }
}

/// How many bytes one message may have.
fn largest_message(called: &Called) -> usize {
    match &called.server.upstream {
        Upstream::Stdio(server) => server.largest_message,
        // Such are not bridged.
        Upstream::Tcp { .. } | Upstream::Unix { .. } => usize::MAX,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") && values.next().is_none()
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let whole_type = media_type.split('/').next().unwrap_or_default();
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        let is_it = essence == media_type || essence == "*/*" || essence == format!("{whole_type}/*");
        is_it && !is_refused
    })
}

/// `_meta` of parameters, unless there is none; the error says that it is odd.
fn meta_of<'a>(params: Option<&'a Object<'_>>) -> Result<Option<Object<'a>>, Refusal> {
    let Some(meta) = params.and_then(|params| params.get("_meta")) else { return Ok(None) };
    let odd = Refusal::Parameter("params._meta is not an object, or has a member twice.");
    Object::parse(meta.get().as_bytes()).map(Some).ok_or(odd)
}

/// Parameters, unless there are none; the error says that they are odd.
fn params_of(params: Option<&RawValue>) -> Result<Option<Object<'_>>, Refusal> {
    let Some(params) = params else { return Ok(None) };
    let odd = Refusal::Parameter("params has a member twice.");
    Object::parse(params.get().as_bytes()).map(Some).ok_or(odd)
}

/// The object that a body is.
fn object_of(body: &[u8]) -> Result<Object<'_>, Refusal> {
    Object::parse(body).ok_or_else(|| match serde_json::from_slice::<&RawValue>(body) {
        Ok(_) => Refusal::NotAMessage("The body is not one JSON object, or has a member twice."),
        Err(_) => Refusal::NotJson,
    })
}
