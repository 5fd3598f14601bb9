//! The newer era: each request stands for itself, and to hang up is to cancel.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use serde_json::value::RawValue;

use super::{Answered, Bridge, Called, Refused, VERSION, largest_message, meta_of, object_of, params_of};
use crate::bridge::answer;
use crate::bridge::audience::Filter;
use crate::bridge::era::{Era, HANDSHAKE, Level, MODERN, meta};
use crate::bridge::message::{self, Message, Object, Outcome};
use crate::bridge::multiplexer::{ClientRequest, Multiplexer};
use crate::bridge::refusal::Refusal;

/// `Mcp-Method`
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Methods whose subject is in a header too, and the parameter that has it.
const NAMED: [(&str, &str); 3] = [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")];

/// Whether a body says that it is a request of this era: only this era has the key.
pub(super) fn is_enveloped(body: &[u8]) -> bool {
    let is = || {
        let object = Object::parse(body)?;
        Some(object.get("id").is_some() && object.object("params")?.object("_meta")?.get(meta::VERSION).is_some())
    };
    memchr::memmem::find(body, meta::VERSION.as_bytes()).is_some() && is() == Some(true)
}

impl Bridge {
    pub(super) async fn modern_post(
        &self,
        called: &Called,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answered, Refused> {
        let object = object_of(body)?;
        match Message::of(&object) {
            Some(Message::Request { id, method, params }) => {
                let answered = self.modern_request(called, headers, id, &method, params).await;
                answered.map_err(|refusal| refusal.for_request(id))
            }
            Some(Message::Notification { .. }) => Ok(Answered::Now(accept(headers)?)),
            Some(Message::Response { .. }) => {
                Err(Refusal::NotAMessage("Clients answer nothing in this revision.").into())
            }
            None => Err(Refusal::NotAMessage("The body is no JSON-RPC 2.0 message.").into()),
        }
    }

    async fn modern_request(
        &self,
        called: &Called,
        headers: &HeaderMap,
        id: &RawValue,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Answered, Refusal> {
        let object = params_of(params)?;
        let level = check(headers, method, object.as_ref())?;
        let lease = self.child(called, Era::Modern).await?;
        let child = Arc::clone(lease.multiplexer());
        let older = child.introduction().filter(|introduction| introduction.era == Era::Handshake);
        match (method, older) {
            ("server/discover", Some(introduction)) => {
                let text = message::response(id, Outcome::Result(&introduction.discover_result()));
                return Ok(Answered::Now(answer::json(StatusCode::OK, text)));
            }
            ("subscriptions/listen", _) => {
                self.may_stream()?;
                let wanted = object.as_ref().and_then(|params| params.object("notifications"));
                let wanted = wanted.ok_or(Refusal::Parameter("params.notifications is missing."))?;
                let filter = Filter::parse(&wanted)?;
                let open = child.audience().open_subscription(id, filter, largest_message(called));
                let open = open.ok_or(Refusal::TooManyStreams)?;
                child.watch(None);
                // The child may rest while its client listens.
                return Ok(Answered::Now(answer::of_stream(open, Arc::clone(&self.clock))));
            }
            _ => {}
        }
        if let Some(level) = level.filter(|_| older.is_some()) {
            child.want_level(level);
        }
        let request =
            ClientRequest { id: id.to_owned(), method: method.to_owned(), era: Era::Modern, session: None, level };
        let asking = Multiplexer::ask(lease, request, params)?;
        Ok(Answered::Later { asking, id: id.to_owned(), era: Era::Modern })
    }
}

/// No notification of a client means anything in this era (streamable HTTP, sending messages).
fn accept(headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let version = headers.get(VERSION).and_then(|version| version.to_str().ok()).unwrap_or_default();
    if version != MODERN {
        return Err(Refusal::Version { requested: version.to_owned() });
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// Checks the envelope and the headers that mirror the body, in the order that clients expect; the log level that is asked
/// for.
fn check(headers: &HeaderMap, method: &str, params: Option<&Object<'_>>) -> Result<Option<Level>, Refusal> {
    let meta = meta_of(params)?.unwrap_or_default();
    if meta.get(meta::VERSION).is_none() || meta.get(meta::CAPABILITIES).is_none() {
        // Whoever speaks a revision that is none of ours is told that, rather than what this one wants.
        return Err(match headers.get(VERSION).map(|version| version.to_str().unwrap_or_default()) {
            Some(version) if version != MODERN && !HANDSHAKE.contains(&version) => {
                Refusal::Version { requested: version.to_owned() }
            }
            _ => Refusal::NoEnvelope,
        });
    }
    let version = meta.string(meta::VERSION).ok_or(Refusal::Parameter("The protocol version is not a string."))?;
    if single(headers, &VERSION)? != Some(version.as_str()) {
        return Err(Refusal::HeaderMismatch("MCP-Protocol-Version"));
    }
    if single(headers, &METHOD)? != Some(method) {
        return Err(Refusal::HeaderMismatch("Mcp-Method"));
    }
    let name = single(headers, &NAME)?;
    if let Some((_, parameter)) = NAMED.iter().find(|(named, _)| *named == method)
        && let Some(value) = params.and_then(|params| params.string(parameter))
        && name.and_then(decoded).as_deref() != Some(value.as_str())
    {
        return Err(Refusal::HeaderMismatch("Mcp-Name"));
    }
    if version != MODERN {
        return Err(Refusal::Version { requested: version });
    }
    if meta.get(meta::LOG_LEVEL).is_none() {
        return Ok(None);
    }
    let level = meta.string(meta::LOG_LEVEL).as_deref().and_then(Level::parse);
    level.map(Some).ok_or(Refusal::Parameter("The log level is none of those of RFC 5424."))
}

/// A header that may be there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    if values.next().is_none() {
        return Ok(value);
    }
    Err(Refusal::HeaderMismatch(match name.as_str() {
        "mcp-method" => "Mcp-Method",
        "mcp-name" => "Mcp-Name",
        _ => "MCP-Protocol-Version",
    }))
}

/// A header's value, which may be in base64 (streamable HTTP, value encoding).
fn decoded(value: &str) -> Option<String> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(value.to_owned());
    };
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bridge::message::raw;

    fn checked(headers: &[(&str, &str)], method: &str, params: &Value) -> Result<Option<Level>, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        let params = raw(params);
        check(&map, method, params_of(Some(&params)).expect("parameters").as_ref())
    }

    #[test]
    fn headers_say_what_the_body_says() {
        let meta = json!({ meta::VERSION: MODERN, meta::CAPABILITIES: {}, meta::LOG_LEVEL: "info" });
        let params = json!({ "name": "größe", "_meta": meta });
        let encoded = format!("=?base64?{}?=", STANDARD.encode("größe"));
        let good = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", encoded.as_str())];
        assert_eq!(checked(&good, "tools/call", &params), Ok(Level::parse("info")));
        for (at, header) in [(0, "MCP-Protocol-Version"), (1, "Mcp-Method"), (2, "Mcp-Name")] {
            let mut wrong = good;
            wrong[at].1 = "other";
            assert_eq!(checked(&wrong, "tools/call", &params), Err(Refusal::HeaderMismatch(header)));
            let missing: Vec<_> =
                good.iter().enumerate().filter(|(number, _)| *number != at).map(|(_, h)| *h).collect();
            assert_eq!(checked(&missing, "tools/call", &params), Err(Refusal::HeaderMismatch(header)));
            let twice = [good.as_slice(), &[good[at]]].concat();
            assert_eq!(checked(&twice, "tools/call", &params), Err(Refusal::HeaderMismatch(header)));
        }
        let old = [("mcp-protocol-version", "2030-01-01"), ("mcp-method", "tools/list")];
        let params = json!({ "_meta": { meta::VERSION: "2030-01-01", meta::CAPABILITIES: {} } });
        let refusal = Refusal::Version { requested: "2030-01-01".to_owned() };
        assert_eq!(checked(&old, "tools/list", &params), Err(refusal));
        assert_eq!(checked(&good, "tools/call", &json!({ "name": "x" })), Err(Refusal::NoEnvelope));
        let loud = json!({ "_meta": { meta::VERSION: MODERN, meta::CAPABILITIES: {}, meta::LOG_LEVEL: "loud" } });
        let refusal = Refusal::Parameter("The log level is none of those of RFC 5424.");
        assert_eq!(checked(&good[..2], "tools/call", &loud), Err(refusal));
    }
}
