//! How the conversation with a child is opened: `server/discover` in the newer era, `initialize` in the older one.
//!
//! A server of the older era answers the first with any error, or not at all (2026-07-28, stdio, backward compatibility).

use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::{Multiplexer, NotConnected, OwnError};
use crate::bridge::era::{Era, Eras, HANDSHAKE, Introduction, MODERN, Opening, Spoken, own_meta, own_name};
use crate::bridge::message::{self, Object, raw};

/// How long a child may say nothing to `server/discover` before it is asked in the other way too.
const SILENCE: Duration = Duration::from_secs(5);
/// `UnsupportedProtocolVersionError`
const UNSUPPORTED_VERSION: i64 = -32022;

/// Opens the conversation, in the newest era that the child speaks or in the one that its key asks for.
pub(super) async fn shake(child: &Multiplexer, eras: &Eras) -> Result<(), NotConnected> {
    let server = &child.key.server;
    let introduction = match (child.key.opening, eras.of(server)) {
        (Opening::Handshake, _) => match initialize(child).await {
            Err(NotConnected::Refused(why)) => {
                eras.learn(server, Spoken::Modern);
                return Err(NotConnected::Refused(why));
            }
            other => other?,
        },
        // Asked before, and it may be one of those that say nothing.
        (Opening::Newest, Some(Spoken::Handshake)) => match initialize(child).await {
            Err(NotConnected::Refused(_)) => discover(child).await?,
            other => other?,
        },
        (Opening::Newest, _) => either(child, eras).await?,
    };
    if child.key.opening == Opening::Newest {
        let spoken = match (introduction.era, eras.of(server)) {
            (Era::Handshake, _) => Spoken::Handshake,
            (Era::Modern, Some(Spoken::Modern)) => Spoken::Modern,
            (Era::Modern, _) => Spoken::Both,
        };
        eras.learn(server, spoken);
    }
    // Nobody else sets it.
    let _ = child.introduction.set(introduction);
    if child.era() == Era::Handshake {
        let line = message::notification("notifications/initialized", None);
        child.send(line).await.map_err(|_| NotConnected::HungUp)?;
    }
    Ok(())
}

async fn either(child: &Multiplexer, eras: &Eras) -> Result<Introduction, NotConnected> {
    let mut discovered = std::pin::pin!(discover(child));
    let first = tokio::select! {
        result = &mut discovered => Some(result),
        () = child.clock.sleep(SILENCE) => None,
    };
    match first {
        Some(Ok(introduction)) => Ok(introduction),
        Some(Err(NotConnected::HungUp)) => {
            // Some servers end at what they do not know. The next child is spoken to in the older way.
            eras.learn(&child.key.server, Spoken::Handshake);
            Err(NotConnected::HungUp)
        }
        Some(Err(_)) => initialize(child).await,
        // It says nothing, or has not come so far: whichever it answers first with a result.
        None => {
            let mut initialized = std::pin::pin!(initialize(child));
            tokio::select! {
                result = &mut discovered => match result {
                    Ok(introduction) => Ok(introduction),
                    Err(_) => initialized.await,
                },
                result = &mut initialized => match result {
                    Ok(introduction) => Ok(introduction),
                    Err(_) => discovered.await,
                },
            }
        }
    }
}

async fn discover(child: &Multiplexer) -> Result<Introduction, NotConnected> {
    let result = child.call("server/discover", &json!({ "_meta": own_meta() })).await.map_err(refused)?;
    let result = Object::parse(result.get().as_bytes()).ok_or_else(|| odd("server/discover"))?;
    let versions: Vec<String> = field(&result, "supportedVersions").unwrap_or_default();
    if !versions.iter().any(|version| version == MODERN) {
        return Err(NotConnected::Refused(format!("it does not speak {MODERN}")));
    }
    let server = result.object("_meta").and_then(|meta| meta.get(super::era::meta::SERVER).map(ToOwned::to_owned));
    Ok(introduction(&result, Era::Modern, MODERN.to_owned(), server))
}

async fn initialize(child: &Multiplexer) -> Result<Introduction, NotConnected> {
    // No capabilities: nothing that it could ask for would have a client to answer it for sure.
    let params = json!({ "protocolVersion": HANDSHAKE[0], "capabilities": {}, "clientInfo": own_name() });
    let result = child.call("initialize", &params).await.map_err(refused)?;
    let result = Object::parse(result.get().as_bytes()).ok_or_else(|| odd("initialize"))?;
    let version = result.string("protocolVersion").ok_or_else(|| odd("initialize"))?;
    if !HANDSHAKE.contains(&version.as_str()) {
        return Err(NotConnected::Refused("it answered initialize with a revision that is not known here".to_owned()));
    }
    let server = result.get("serverInfo").map(ToOwned::to_owned);
    Ok(introduction(&result, Era::Handshake, version, server))
}

fn introduction(result: &Object<'_>, era: Era, version: String, server: Option<Box<RawValue>>) -> Introduction {
    let capabilities = result.get("capabilities").map_or_else(|| raw(&json!({})), ToOwned::to_owned);
    let instructions = result.get("instructions").filter(|text| text.get().starts_with('"')).map(ToOwned::to_owned);
    Introduction { era, version, capabilities, server, instructions }
}

fn field<T: serde::de::DeserializeOwned>(object: &Object<'_>, name: &str) -> Option<T> {
    serde_json::from_str(object.get(name)?.get()).ok()
}

fn odd(method: &str) -> NotConnected {
    NotConnected::Refused(format!("its answer to {method} cannot be understood"))
}

fn refused(error: OwnError) -> NotConnected {
    match error {
        OwnError::Ended => NotConnected::HungUp,
        OwnError::Error { code: UNSUPPORTED_VERSION, data } => {
            let supported =
                data.and_then(|data| field::<Vec<String>>(&Object::parse(data.get().as_bytes())?, "supported"));
            let known = |version: &&String| version.len() <= 32 && version.bytes().all(|byte| byte.is_ascii_graphic());
            let supported: Vec<String> = supported.iter().flatten().filter(known).take(8).cloned().collect();
            NotConnected::Refused(format!("it speaks other revisions of the protocol: {}", supported.join(", ")))
        }
        OwnError::Error { code, .. } => NotConnected::Refused(format!("it answered with the error {code}")),
    }
}
