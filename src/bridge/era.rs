//! The two eras of the protocol, and what has to be changed in a message where client and child are not of the same.
//!
//! Up to 2025-11-25 a connection begins with `initialize`, and what was agreed there holds for all that follows. Since
//! 2026-07-28 each request carries the version, and what its client can do, in `_meta`; each result says what kind it is,
//! and how long it may be kept.

use dashmap::DashMap;
use serde_json::json;
use serde_json::value::RawValue;

use super::message::{Object, raw};
use crate::model::names::ServerName;

/// The revision without a handshake.
pub const MODERN: &str = "2026-07-28";
/// Those with, the newest first.
pub const HANDSHAKE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Keys of `_meta`.
pub mod meta {
    /// Which revision a request is written in.
    pub const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Who asks.
    pub const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
    /// What the client can be asked for.
    pub const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Which log messages the client wants while the request is under way.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Who answered.
    pub const SERVER: &str = "io.modelcontextprotocol/serverInfo";
    /// Which subscription a notification is for.
    pub const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
    /// What progress is reported under.
    pub const PROGRESS: &str = "progressToken";
}

/// Which of the two a client or child speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Era {
    /// With `initialize`, up to 2025-11-25.
    Handshake,
    /// Without, since 2026-07-28.
    Modern,
}

/// How the conversation with a child is opened. A child that speaks both eras keeps to the one in which it was spoken to
/// first, so clients of the older era get one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opening {
    /// In the newest era that it speaks.
    Newest,
    /// With `initialize`.
    Handshake,
}

/// What the children of a server were found to speak. Forgotten at a restart of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Only the era with the handshake.
    Handshake,
    /// The newer era, and the older one unless it turns out otherwise.
    Both,
    /// Only the newer one.
    Modern,
}

/// What is known of each server.
#[derive(Default)]
pub struct Eras(DashMap<ServerName, Spoken>);

impl Eras {
    /// What is known of a server.
    pub fn of(&self, server: &ServerName) -> Option<Spoken> {
        self.0.get(server).map(|spoken| *spoken)
    }

    /// Takes note.
    pub fn learn(&self, server: &ServerName, spoken: Spoken) {
        self.0.insert(server.clone(), spoken);
    }
}

/// What a child said of itself when it was first spoken to.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// How it is spoken to.
    pub era: Era,
    /// The revision that was agreed on.
    pub version: String,
    /// What it can do, as it wrote it.
    pub capabilities: Box<RawValue>,
    /// Who it is, if it said so.
    pub server: Option<Box<RawValue>>,
    /// How it is to be used, if it said so.
    pub instructions: Option<Box<RawValue>>,
}

impl Introduction {
    /// Whether it declared a capability.
    pub fn can(&self, capability: &str) -> bool {
        Object::parse(self.capabilities.get().as_bytes()).is_some_and(|declared| declared.get(capability).is_some())
    }

    /// The result of `initialize` for a client that asked for a revision.
    pub fn initialize_result(&self, asked: &str) -> Box<RawValue> {
        let own = HANDSHAKE.iter().position(|version| *version == self.version).unwrap_or(0);
        // A revision that we do not know is answered with the newest (lifecycle, version negotiation); the child speaks
        // none that is newer than what was agreed with it.
        let asked = HANDSHAKE.iter().position(|version| *version == asked).unwrap_or(0);
        let mut result = Object::default();
        result.set("protocolVersion", raw(HANDSHAKE[own.max(asked)]));
        result.set("capabilities", self.capabilities.clone());
        let unnamed = || raw(&json!({ "name": "unnamed", "version": "0" }));
        result.set("serverInfo", self.server.clone().unwrap_or_else(unnamed));
        if let Some(instructions) = &self.instructions {
            result.set("instructions", instructions.clone());
        }
        result.raw()
    }

    /// The result of `server/discover` of a child that does not know it.
    pub fn discover_result(&self) -> Box<RawValue> {
        let versions: Vec<&str> = [MODERN].into_iter().chain(HANDSHAKE).collect();
        let mut result = Object::default();
        result.set("supportedVersions", raw(&versions));
        result.set("capabilities", self.capabilities.clone());
        if let Some(instructions) = &self.instructions {
            result.set("instructions", instructions.clone());
        }
        self.modern_result("server/discover", &result.raw())
    }

    /// A result of a child of the older era, as clients of the newer one expect it. What it says of itself wins.
    pub fn modern_result(&self, method: &str, result: &RawValue) -> Box<RawValue> {
        let Some(mut object) = Object::parse(result.get().as_bytes()) else { return result.to_owned() };
        object.set_missing("resultType", || raw("complete"));
        if IS_KEPT.contains(&method) {
            // Nobody said how long it holds, nor that it is the same for everybody.
            object.set_missing("ttlMs", || raw(&0));
            object.set_missing("cacheScope", || raw("private"));
        }
        if let Some(server) = &self.server {
            let with_server = |meta: Option<Object<'_>>| {
                let mut meta = meta.unwrap_or_default();
                meta.set_missing(meta::SERVER, || server.clone());
                meta.raw()
            };
            match object.get("_meta").map(|meta| Object::parse(meta.get().as_bytes())) {
                Some(None) => {}
                Some(Some(meta)) => {
                    let meta = with_server(Some(meta));
                    object.set("_meta", meta);
                }
                None => object.set("_meta", with_server(None)),
            }
        }
        object.raw()
    }
}

/// Results that must say how long they may be kept.
const IS_KEPT: [&str; 6] =
    ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];

/// `_meta` of a request of ours to a child of the newer era.
pub fn own_meta() -> serde_json::Value {
    json!({ meta::VERSION: MODERN, meta::CLIENT: own_name(), meta::CAPABILITIES: {} })
}

/// Who we are, to a child.
pub fn own_name() -> serde_json::Value {
    json!({ "name": "sidekey", "version": env!("CARGO_PKG_VERSION") })
}

/// The parameters of a client's request as its child is to get them: progress under a token of ours, and what the era of
/// the child has in `_meta`. `progress` is what the client wants progress to be reported under.
pub fn child_params(
    params: Option<&RawValue>,
    client: Era,
    child: Era,
    own_token: u64,
) -> (Option<Box<RawValue>>, Option<Box<RawValue>>) {
    let mut object = params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
    let had_params = params.is_some();
    let given = object.get("_meta").map(ToOwned::to_owned);
    let mut meta = given.as_deref().and_then(|meta| Object::parse(meta.get().as_bytes())).unwrap_or_default();
    let progress = meta.get(meta::PROGRESS).map(ToOwned::to_owned);
    if progress.is_some() {
        meta.set(meta::PROGRESS, raw(&own_token));
    }
    match (client, child) {
        (Era::Modern, Era::Handshake) => {
            meta.retain(|name| ![meta::VERSION, meta::CLIENT, meta::CAPABILITIES, meta::LOG_LEVEL].contains(&name));
        }
        (Era::Handshake, Era::Modern) => {
            meta.set(meta::VERSION, raw(MODERN));
            meta.set(meta::CLIENT, raw(&own_name()));
            // Nothing can be asked of this client in the way in which this child asks.
            meta.set(meta::CAPABILITIES, raw(&json!({})));
        }
        (Era::Handshake, Era::Handshake) | (Era::Modern, Era::Modern) => {}
    }
    if meta.is_empty() {
        object.retain(|name| name != "_meta");
    } else {
        let meta = meta.raw();
        object.set("_meta", meta);
    }
    let params = (had_params || !object.is_empty()).then(|| object.raw());
    (params, progress)
}

/// How important a log message is (RFC 5424), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(usize);

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

impl Level {
    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == name).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        LEVELS[self.0]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).expect("JSON")
    }

    fn introduction() -> Introduction {
        Introduction {
            era: Era::Handshake,
            version: "2025-06-18".to_owned(),
            capabilities: raw(&json!({ "tools": {} })),
            server: Some(raw(&json!({ "name": "notes", "version": "1" }))),
            instructions: None,
        }
    }

    #[test]
    fn a_client_gets_no_newer_revision_than_its_child_speaks() {
        for (asked, agreed) in [
            ("2025-11-25", "2025-06-18"),
            ("2025-06-18", "2025-06-18"),
            ("2025-03-26", "2025-03-26"),
            ("1999-01-01", "2025-06-18"),
        ] {
            let result = value(&introduction().initialize_result(asked));
            assert_eq!(result["protocolVersion"], agreed, "{asked}");
            assert_eq!(
                (&result["serverInfo"]["name"], &result["capabilities"]),
                (&json!("notes"), &json!({"tools": {}}))
            );
        }
    }

    #[test]
    fn results_of_the_older_era_get_what_the_newer_one_requires() {
        let list = introduction().modern_result("tools/list", &raw(&json!({ "tools": [], "_meta": { "a": 1 } })));
        let server = json!({ "name": "notes", "version": "1" });
        assert_eq!(
            value(&list),
            json!({ "tools": [], "_meta": { "a": 1, meta::SERVER: server }, "resultType": "complete", "ttlMs": 0,
                "cacheScope": "private" })
        );
        let call = introduction().modern_result("tools/call", &raw(&json!({ "content": [], "resultType": "own" })));
        assert_eq!(value(&call), json!({ "content": [], "resultType": "own", "_meta": { meta::SERVER: server } }));
    }

    #[test]
    fn what_an_era_does_not_know_is_taken_out_or_put_in() {
        let modern = json!({ "name": "x", "_meta": { meta::VERSION: MODERN, meta::CLIENT: {"name": "c"},
            meta::CAPABILITIES: { "sampling": {} }, "progressToken": "p", "traceparent": "t" } });
        let (params, progress) = child_params(Some(&raw(&modern)), Era::Modern, Era::Handshake, 9);
        let expected = json!({ "name": "x", "_meta": { "progressToken": 9, "traceparent": "t" } });
        assert_eq!(value(&params.expect("parameters")), expected);
        assert_eq!(progress.expect("a token").get(), "\"p\"");
        let (params, progress) = child_params(Some(&raw(&modern)), Era::Modern, Era::Modern, 9);
        assert_eq!(value(&params.expect("parameters"))["_meta"][meta::CAPABILITIES], json!({ "sampling": {} }));
        assert!(progress.is_some());
        let (params, progress) = child_params(None, Era::Handshake, Era::Modern, 9);
        assert_eq!(value(&params.expect("parameters")), json!({ "_meta": own_meta() }));
        assert!(progress.is_none());
        assert!(child_params(None, Era::Handshake, Era::Handshake, 9).0.is_none());
    }
}
