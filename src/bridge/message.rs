//! JSON-RPC messages, looked at no deeper than necessary: what a tool is called with, and what it answers, goes through as
//! the bytes that came.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON object whose members are known by name and otherwise unread. No name is there twice: two readers could take
/// different ones.
#[derive(Clone, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, RawValue>)>,
}

impl<'a> Object<'a> {
    /// Reads an object.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Reads a member that is an object itself.
    pub fn object(&self, name: &str) -> Option<Object<'_>> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// A member as it was written.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }

    /// A member that is a string.
    pub fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Puts a member in the place of the one of this name, or adds it.
    pub fn set(&mut self, name: &'a str, value: Box<RawValue>) {
        match self.members.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.members.push((Cow::Borrowed(name), Cow::Owned(value))),
        }
    }

    /// Adds a member where there is none of this name.
    pub fn set_missing(&mut self, name: &'a str, value: impl FnOnce() -> Box<RawValue>) {
        if self.get(name).is_none() {
            self.set(name, value());
        }
    }

    /// Takes out all members that do not pass.
    pub fn retain(&mut self, passes: impl Fn(&str) -> bool) {
        self.members.retain(|(name, _)| passes(name));
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// As text.
    pub fn raw(&self) -> Box<RawValue> {
        raw(self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                // Not looked for among the members: there can be a million.
                let mut known = HashSet::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    if !known.insert(name.0.clone()) {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                    object.members.push((name.0, Cow::Borrowed(map.next_value()?)));
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (name, value) in &self.members {
            map.serialize_entry(name.as_ref(), value.as_ref())?;
        }
        map.end()
    }
}

/// The parts of a batch, each as it was written; nothing if it is none, or has more than [`LONGEST_BATCH`]. It is read no
/// further than to the first one too many.
pub struct Batch<'a>(Vec<&'a RawValue>);

/// Messages in one batch.
pub const LONGEST_BATCH: usize = 64;

impl<'a> Batch<'a> {
    /// Reads a batch.
    pub fn parse(text: &'a [u8]) -> Option<Vec<&'a RawValue>> {
        serde_json::from_slice::<Self>(text).ok().map(|batch| batch.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Batch<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a batch")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Batch<'de>, A::Error> {
                let mut batch = Vec::new();
                while let Some(part) = parts.next_element()? {
                    if batch.len() == LONGEST_BATCH {
                        return Err(A::Error::custom("too many messages"));
                    }
                    batch.push(part);
                }
                Ok(Batch(batch))
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// Borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// What somebody says in JSON-RPC 2.0.
pub enum Message<'a> {
    /// Asks for an answer.
    Request {
        /// A string or a whole number.
        id: &'a RawValue,
        /// What for.
        method: String,
        /// With what.
        params: Option<&'a RawValue>,
    },
    /// Tells something.
    Notification {
        /// What about.
        method: String,
        /// The rest.
        params: Option<&'a RawValue>,
    },
    /// Answers a request.
    Response {
        /// Which; `null` where the request could not be read.
        id: &'a RawValue,
        /// What came of it.
        outcome: Outcome<'a>,
    },
}

/// What came of a request.
#[derive(Clone, Copy)]
pub enum Outcome<'a> {
    /// It worked.
    Result(&'a RawValue),
    /// It did not.
    Error(&'a RawValue),
}

impl<'a> Message<'a> {
    /// What an object says; `None` if it is no message.
    pub fn of(object: &'a Object<'_>) -> Option<Self> {
        if object.string("jsonrpc").as_deref() != Some("2.0") {
            return None;
        }
        let (id, params) = (object.get("id"), object.get("params"));
        // MCP has parameters by name only.
        if params.is_some_and(|params| !params.get().starts_with('{')) {
            return None;
        }
        match (object.get("method"), id, object.get("result"), object.get("error")) {
            (Some(_), Some(id), None, None) if is_id(id) => {
                Some(Self::Request { id, method: object.string("method")?, params })
            }
            (Some(_), None, None, None) => Some(Self::Notification { method: object.string("method")?, params }),
            (None, Some(id), Some(result), None) if is_id(id) => {
                Some(Self::Response { id, outcome: Outcome::Result(result) })
            }
            (None, id, None, Some(error)) if error.get().starts_with('{') => {
                let id = id.unwrap_or(RawValue::NULL);
                (is_id(id) || id.get() == "null").then_some(Self::Response { id, outcome: Outcome::Error(error) })
            }
            _ => None,
        }
    }
}

/// Whether a value can be the id of a request: a string, or a whole number.
fn is_id(value: &RawValue) -> bool {
    let text = value.get();
    text.starts_with('"') || text.parse::<i64>().is_ok()
}

/// A value as text.
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("values made here serialize")
}

#[derive(Serialize)]
struct Envelope<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

const EMPTY: Envelope<'static> =
    Envelope { jsonrpc: "2.0", id: None, method: None, params: None, result: None, error: None };

/// A request as text.
pub fn request(id: &RawValue, method: &str, params: Option<&RawValue>) -> Vec<u8> {
    line(&Envelope { id: Some(id), method: Some(method), params, ..EMPTY })
}

/// A notification as text.
pub fn notification(method: &str, params: Option<&RawValue>) -> Vec<u8> {
    line(&Envelope { method: Some(method), params, ..EMPTY })
}

/// A response as text.
pub fn response(id: &RawValue, outcome: Outcome<'_>) -> Vec<u8> {
    let (result, error) = match outcome {
        Outcome::Result(result) => (Some(result), None),
        Outcome::Error(error) => (None, Some(error)),
    };
    line(&Envelope { id: Some(id), result, error, ..EMPTY })
}

/// In one line: line breaks stand between the tokens of JSON, never within them.
fn line(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut text = serde_json::to_vec(envelope).expect("envelopes serialize");
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        let Some(object) = Object::parse(text.as_bytes()) else { return "none" };
        match Message::of(&object) {
            Some(Message::Request { .. }) => "request",
            Some(Message::Notification { .. }) => "notification",
            Some(Message::Response { outcome: Outcome::Result(_), .. }) => "result",
            Some(Message::Response { outcome: Outcome::Error(_), .. }) => "error",
            None => "none",
        }
    }

    #[test]
    fn messages_are_told_apart() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, "request"),
            (r#"{"jsonrpc":"2.0","id":"a","method":"tools/list","params":{}}"#, "request"),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "notification"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"?"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#, "none"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}"#, "none"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}"#, "none"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"tools/list"}"#, "none"),
            (r#"{"id":1,"method":"tools/list"}"#, "none"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "none"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list"}"#, "none"),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#, "none"),
            ("Server is listening", "none"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn a_message_is_one_line_and_says_what_it_said() {
        let text = "{\"jsonrpc\":\"2.0\",\"id\":7,\r\n\"method\":\"x\",\"params\":{\n \"a\": \"line\\nbreak\",\n \"b\": [1,\n 2.50]}}";
        let object = Object::parse(text.as_bytes()).expect("an object");
        let Some(Message::Request { id, method, params }) = Message::of(&object) else { panic!("no request") };
        let line = request(id, &method, params);
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let written: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
        assert!(String::from_utf8_lossy(&line).contains("2.50"), "numbers stay as they were written");
    }
}
