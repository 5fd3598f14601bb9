//! One text in a JSON document: found and replaced where it stands, so that not a byte of the rest changes.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The document holds the same key twice where a step leads: servers differ in which one they read.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// Where the text (or `null`) is that the steps of a pointer lead to. `None` if there is none, or no JSON.
pub fn find(document: &[u8], steps: &[String]) -> Result<Option<Range<usize>>, Ambiguous> {
    let Ok(mut value) = serde_json::from_slice::<&RawValue>(document) else { return Ok(None) };
    for step in steps {
        let Ok(found) = serde_json::Deserializer::from_str(value.get()).deserialize_any(Step(step)) else {
            return Ok(None);
        };
        match found {
            Lookup::One(next) => value = next,
            Lookup::None => return Ok(None),
            Lookup::Several => return Err(Ambiguous),
        }
    }
    let text = value.get();
    if !(text.starts_with('"') || text == "null") {
        return Ok(None);
    }
    // A raw value is a piece of the document itself.
    let begin = text.as_ptr() as usize - document.as_ptr() as usize;
    Ok(Some(begin..begin + text.len()))
}

/// The text at a place that was found; `null` is none.
pub fn text(document: &[u8], place: &Range<usize>) -> Option<String> {
    serde_json::from_slice(&document[place.clone()]).ok()
}

/// The same document with another text there.
pub fn replace(document: &[u8], place: &Range<usize>, text: &str) -> Vec<u8> {
    let text = serde_json::Value::from(text).to_string();
    [&document[..place.start], text.as_bytes(), &document[place.end..]].concat()
}

enum Lookup<'d> {
    None,
    One(&'d RawValue),
    Several,
}

/// One step of a pointer: a key of an object, or a place in a list.
struct Step<'s>(&'s str);

impl<'d> Visitor<'d> for Step<'_> {
    type Value = Lookup<'d>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or a list")
    }

    fn visit_map<M: MapAccess<'d>>(self, mut map: M) -> Result<Lookup<'d>, M::Error> {
        let mut found = Lookup::None;
        while let Some(key) = map.next_key::<String>()? {
            if key != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else {
                let value = map.next_value::<&RawValue>()?;
                found = if matches!(found, Lookup::None) { Lookup::One(value) } else { Lookup::Several };
            }
        }
        Ok(found)
    }

    fn visit_seq<S: SeqAccess<'d>>(self, mut list: S) -> Result<Lookup<'d>, S::Error> {
        let wanted: Option<usize> = self.0.parse().ok();
        let (mut found, mut index) = (Lookup::None, 0);
        while let Some(value) = list.next_element::<&RawValue>()? {
            if wanted == Some(index) {
                found = Lookup::One(value);
            }
            index += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(pointer: &str) -> Vec<String> {
        pointer.split('/').skip(1).map(str::to_owned).collect()
    }

    fn replaced(document: &str, pointer: &str) -> Option<String> {
        let place = find(document.as_bytes(), &steps(pointer)).expect("not ambiguous")?;
        let out = replace(document.as_bytes(), &place, "n\"ew");
        Some(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn only_the_text_changes() {
        let document = "\n{ \"a\" : 1.0e+2, \"auth\":{ \"x\":[1 , 2],\"token\" : \"o\\u006cd\" } ,\"z\":\"\\/\" }  ";
        let expected = "\n{ \"a\" : 1.0e+2, \"auth\":{ \"x\":[1 , 2],\"token\" : \"n\\\"ew\" } ,\"z\":\"\\/\" }  ";
        assert_eq!(replaced(document, "/auth/token").as_deref(), Some(expected));
        let place = find(document.as_bytes(), &steps("/auth/token")).expect("fine").expect("there");
        assert_eq!(text(document.as_bytes(), &place).as_deref(), Some("old"));
        assert_eq!(replaced("[null,\"a\"]", "/1").as_deref(), Some("[null,\"n\\\"ew\"]"));
        assert_eq!(replaced("[null,\"a\"]", "/0").as_deref(), Some("[\"n\\\"ew\",\"a\"]"));
        assert_eq!(replaced("{\"t\\u006fken\":\"a\"}", "/token").as_deref(), Some("{\"t\\u006fken\":\"n\\\"ew\"}"));
    }

    #[test]
    fn what_is_no_text_there_is_none() {
        for (document, pointer) in [
            ("{\"a\":1}", "/a"),
            ("{\"a\":{}}", "/a"),
            ("{\"a\":\"x\"}", "/b"),
            ("{\"a\":\"x\"}", "/a/b"),
            ("[\"x\"]", "/a"),
            ("[\"x\"]", "/1"),
            ("{\"a\":\"x\"", "/a"),
            ("", "/a"),
            ("a=b", "/a"),
        ] {
            assert_eq!(replaced(document, pointer), None, "{document} {pointer}");
        }
    }

    #[test]
    fn a_repeated_key_is_ambiguous() {
        let find = |document: &str| find(document.as_bytes(), &steps("/a/b"));
        assert_eq!(find("{\"a\":{\"b\":\"x\",\"b\":\"y\"}}"), Err(Ambiguous));
        assert_eq!(find("{\"a\":{\"b\":\"x\"},\"\\u0061\":1}"), Err(Ambiguous));
        assert!(find("{\"c\":1,\"c\":2,\"a\":{\"b\":\"x\"}}").is_ok_and(|found| found.is_some()));
    }
}
