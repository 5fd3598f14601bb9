//! Declared places of a token and of a tenant, made ready for requests.

use http::HeaderName;
use http::header;

use crate::catalogue::entry::{BasicHalf, Fill, PlaceEntry};

/// A place besides the credential header in which an API takes a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The whole value of a header.
    Header(HeaderName),
    /// One half of `Authorization: Basic`.
    Basic(BasicHalf),
    /// A query parameter.
    Query(String),
    /// A field of a form.
    Form(String),
    /// A text in a JSON body: the pointer's steps, decoded.
    Json(Vec<String>),
    /// A path segment: what stands before and after the token in it.
    Path(String, String),
}

/// What stands for the token in a declared path segment.
const TOKEN: &str = "{token}";

impl Place {
    /// Reads a declaration.
    pub fn prepare(declared: &PlaceEntry) -> Result<Self, String> {
        let PlaceEntry { header, basic, query, form, json, path } = declared;
        let mut places = [
            header.as_deref().map(in_header),
            basic.map(|half| Ok(Self::Basic(half))),
            query.as_deref().map(|name| named(name).map(Self::Query)),
            form.as_deref().map(|name| named(name).map(Self::Form)),
            json.as_deref().map(in_json),
            path.as_deref().map(in_path),
        ]
        .into_iter()
        .flatten();
        match (places.next(), places.next()) {
            (Some(place), None) => place,
            _ => Err("is not one place: expected exactly one of header, basic, query, form, json and path".to_owned()),
        }
    }
}

fn in_header(name: &str) -> Result<Place, String> {
    value_header(name).map(Place::Header)
}

fn named(name: &str) -> Result<String, String> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&;=%+".contains(&byte));
    if plain { Ok(name.to_owned()) } else { Err(format!("{name:?} is not the name of a parameter")) }
}

fn in_json(pointer: &str) -> Result<Place, String> {
    let Some(steps) = pointer.strip_prefix('/') else {
        return Err(format!("{pointer:?} is not a JSON pointer: expected one such as \"/auth/token\""));
    };
    Ok(Place::Json(steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
}

fn in_path(segment: &str) -> Result<Place, String> {
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte));
    match segment.split_once(TOKEN) {
        Some((before, after)) if plain(before) && plain(after) => Ok(Place::Path(before.to_owned(), after.to_owned())),
        _ => Err(format!("{segment:?} is not a path segment with one {TOKEN} in it")),
    }
}

/// A header whose value may be replaced as a whole: none of those that say how a message is read, or whose it is.
fn value_header(name: &str) -> Result<HeaderName, String> {
    const OTHERS: [HeaderName; 14] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::ORIGIN,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let parsed: Option<HeaderName> = name.parse().ok();
    // A name with an underscore is refused in requests, since some servers read it as one with a hyphen.
    parsed
        .filter(|parsed| !OTHERS.contains(parsed) && !parsed.as_str().contains('_'))
        .ok_or_else(|| format!("{name:?} is not a header that can hold this value"))
}

/// Where callers name captured values, ready for requests: the name there, and the name of the captured value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fills {
    /// Query parameters.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub header: Vec<(HeaderName, String)>,
}

impl Fills {
    /// Reads one declaration after another; what is declared later goes first.
    pub fn prepare<'f>(declared: impl Iterator<Item = &'f Fill>) -> Result<Self, String> {
        let mut fills = Self::default();
        for fill in declared {
            for (name, value) in &fill.query {
                let name = named(name)?;
                fills.query.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
                fills.query.push((name, value.clone()));
            }
            for (name, value) in &fill.header {
                let name = value_header(name)?;
                fills.header.retain(|(known, _)| *known != name);
                fills.header.push((name, value.clone()));
            }
        }
        Ok(fills)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(declared: serde_json::Value) -> Result<Place, String> {
        Place::prepare(&serde_json::from_value(declared).expect("the right shape"))
    }

    #[test]
    fn a_place_is_one_thing() {
        use serde_json::json;
        assert_eq!(prepared(json!({ "basic": "password" })), Ok(Place::Basic(BasicHalf::Password)));
        assert_eq!(prepared(json!({ "form": "token" })), Ok(Place::Form("token".to_owned())));
        assert_eq!(prepared(json!({ "json": "/a~1b/0" })), Ok(Place::Json(vec!["a/b".to_owned(), "0".to_owned()])));
        assert_eq!(prepared(json!({ "path": "bot{token}" })), Ok(Place::Path("bot".to_owned(), String::new())));
        for odd in [
            json!({}),
            json!({ "query": "a", "form": "a" }),
            json!({ "header": "authorization" }),
            json!({ "header": "x_token" }),
            json!({ "header": "a b" }),
            json!({ "query": "" }),
            json!({ "query": "a=b" }),
            json!({ "json": "token" }),
            json!({ "path": "bot" }),
            json!({ "path": "{token}/{token}" }),
            json!({ "path": "a/{token}" }),
        ] {
            assert!(prepared(odd.clone()).is_err(), "{odd}");
        }
    }
}
