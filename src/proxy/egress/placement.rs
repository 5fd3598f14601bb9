//! Where a caller put its handle, and where the token goes instead.
//!
//! [`find`] looks where a token may be: in the credential header, in `Authorization` in any scheme, and in the places that
//! the API declares. The token goes into the declared place in which the caller had anything, otherwise into the
//! credential header: exactly one place, and nothing that the caller brought as credential leaves.
//!
//! What policy judges and what is searched for handles is the request without its credential ([`Found::judged`],
//! [`Found::body_without_credential`]); the token is put in last.

pub(super) mod credential;
mod json;
mod pairs;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use self::pairs::{Occurrence, RESERVED};
use super::target::Target;
use crate::base::secret::Secret;
use crate::catalogue::Api;
use crate::catalogue::entry::BasicHalf;
use crate::catalogue::place::Place;
use crate::model::handle;

/// Longer bodies are not read before they are sent on, so nothing can be put into them.
pub const LONGEST_BODY: usize = 64 * 1024;

/// Some tokens hold a colon, and those who take tokens in paths expect to see it.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b':');

/// Why it is not clear whose request it is, or where its token goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// A place holds more than one credential, or two places do that cannot both be served.
    TwoCredentials,
    /// The request holds two different handles.
    TwoHandles,
    /// The handle may stand in a body that is too long to be read.
    BodyTooLarge,
    /// The token cannot be written in that place.
    NotWritable(&'static str),
}

/// The body of a request, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Body<'r> {
    /// There is none, or no declared place can be in it ([`needs_body`]).
    Unread,
    /// All of it.
    Whole(&'r [u8]),
    /// It is longer than [`LONGEST_BODY`].
    TooLong,
}

/// Whether the body must be read before it is known whose request it is and where the token goes.
pub fn needs_body(api: &Api, headers: &HeaderMap) -> bool {
    api.places.iter().any(|place| match place {
        Place::Form(_) => is_form(headers),
        Place::Json(_) => is_json(headers),
        _ => false,
    })
}

fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media_type| media_type == "application/x-www-form-urlencoded")
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media_type| media_type == "application/json" || media_type.ends_with("+json"))
}

/// What a body is, if it can be read as it stands.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let is_plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding == "identity");
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(declared), None, true) = (types.next(), types.next(), is_plain) else { return None };
    let media_type = declared.to_str().ok()?.split(';').next()?;
    Some(media_type.trim().to_ascii_lowercase())
}

/// What was found in a request.
#[derive(Debug)]
pub struct Found {
    /// The handle, as it was presented.
    pub handle: Option<String>,
    spot: Spot,
    /// For a path segment: which it is, and what stands there without the credential.
    segment: Option<(usize, String)>,
    /// For a query parameter: the query without the credential.
    query: Option<String>,
}

/// The one place into which the token goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spot {
    Canonical,
    Header(HeaderName),
    Basic { half: BasicHalf, other: String },
    Query(String),
    Form(String),
    Json(Vec<String>),
    Path { from_end: usize, before: String, after: String },
}

impl Spot {
    fn is_in_headers(&self) -> bool {
        matches!(self, Self::Canonical | Self::Header(_) | Self::Basic { .. })
    }
}

/// A declared place in which the caller has something.
struct Held {
    spot: Spot,
    handle: Option<String>,
}

/// Finds whose request it is and where its token goes.
pub fn find(api: &Api, headers: &HeaderMap, target: &Target<'_>, body: Body<'_>) -> Result<Found, PlacementError> {
    let mut handles = Vec::new();
    for name in [&AUTHORIZATION, &api.credential.header] {
        handles.extend(one(headers, name)?.map(|value| credential::handles(value.as_bytes())).unwrap_or_default());
    }
    let mut held = Vec::new();
    for place in &api.places {
        held.extend(look(place, headers, target, body)?);
    }
    handles.extend(held.iter().filter_map(|held| held.handle.clone()));
    let handle = the_one(handles)?;
    if matches!(body, Body::TooLong) && handle.is_none() && needs_body(api, headers) {
        return Err(PlacementError::BodyTooLarge);
    }
    let chosen = held.iter().position(|held| held.handle.is_some()).or(if held.is_empty() { None } else { Some(0) });
    let spot = chosen.map_or(Spot::Canonical, |chosen| held.swap_remove(chosen).spot);
    // Headers are removed; what else holds a credential cannot be without changing what the request says.
    if held.iter().any(|other| !other.spot.is_in_headers()) {
        return Err(PlacementError::TwoCredentials);
    }
    let segment = match &spot {
        Spot::Path { from_end, before, after } => {
            Some((target.segments.len() - 1 - from_end, format!("{before}0{after}")))
        }
        _ => None,
    };
    let query = match (&spot, target.query) {
        (Spot::Query(name), Some(query)) => Some(text(pairs::replace(query.as_bytes(), name, ""))?),
        _ => None,
    };
    Ok(Found { handle, spot, segment, query })
}

/// The same handle may be presented twice, but for the beginning that a server expects; two different ones may not.
pub(super) fn the_one(mut handles: Vec<String>) -> Result<Option<String>, PlacementError> {
    let Some(first) = handles.pop() else { return Ok(None) };
    let bare = |presented: &str| handle::without_prefix(presented).to_owned();
    if handles.iter().all(|other| bare(other) == bare(&first)) {
        Ok(Some(first))
    } else {
        Err(PlacementError::TwoHandles)
    }
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, PlacementError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(PlacementError::TwoCredentials),
    }
}

/// What the caller has in a declared place.
fn look(
    place: &Place,
    headers: &HeaderMap,
    target: &Target<'_>,
    body: Body<'_>,
) -> Result<Option<Held>, PlacementError> {
    let in_pairs = |pairs: &[u8], name: &str, spot: Spot| match pairs::find(pairs, name) {
        Occurrence::None => Ok(None),
        Occurrence::Once(value) => Ok(Some(Held { spot, handle: credential::handle(&value) })),
        Occurrence::Odd => Err(PlacementError::TwoCredentials),
    };
    match (place, body) {
        (Place::Header(name), _) => Ok(one(headers, name)?.map(|value| Held {
            spot: Spot::Header(name.clone()),
            handle: credential::handle(value.as_bytes().trim_ascii()),
        })),
        (Place::Basic(half), _) => {
            let pair = one(headers, &AUTHORIZATION)?.and_then(|value| credential::basic(value.as_bytes()));
            // A handle in the other half would go out with it.
            let pair = pair.filter(|pair| credential::handle(pair.other(*half).as_bytes()).is_none());
            Ok(pair.map(|pair| Held {
                spot: Spot::Basic { half: *half, other: pair.other(*half).to_owned() },
                handle: credential::handle(pair.half(*half).as_bytes()),
            }))
        }
        (Place::Query(name), _) => {
            in_pairs(target.query.unwrap_or_default().as_bytes(), name, Spot::Query(name.clone()))
        }
        (Place::Form(name), Body::Whole(body)) if is_form(headers) => in_pairs(body, name, Spot::Form(name.clone())),
        (Place::Json(steps), Body::Whole(body)) if is_json(headers) => {
            let place = json::find(body, steps).map_err(|json::Ambiguous| PlacementError::TwoCredentials)?;
            let handle_at = |place| json::text(body, &place).and_then(|text| credential::handle(text.as_bytes()));
            Ok(place.map(|place| Held { spot: Spot::Json(steps.clone()), handle: handle_at(place) }))
        }
        (Place::Path(before, after), _) => in_path(before, after, target),
        (Place::Form(_) | Place::Json(_), _) => Ok(None),
    }
}

/// A path segment is a place only where a handle or a placeholder stands in it: others may have the same beginning.
fn in_path(before: &str, after: &str, target: &Target<'_>) -> Result<Option<Held>, PlacementError> {
    let inner = |segment: &str| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let inner = decoded.strip_prefix(before)?.strip_suffix(after)?.to_owned();
        let handle = credential::handle(inner.as_bytes());
        (handle.is_some() || ["0", "token", "{token}"].contains(&inner.as_str())).then_some(handle)
    };
    let mut found = target.segments.iter().rev().enumerate().filter_map(|(at, segment)| Some((at, inner(segment)?)));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some((from_end, handle)), None) => {
            let (before, after) = (before.to_owned(), after.to_owned());
            Ok(Some(Held { spot: Spot::Path { from_end, before, after }, handle }))
        }
        _ => Err(PlacementError::TwoCredentials),
    }
}

/// The headers that may hold what the caller brought as credential. All of them are removed before ours is set.
pub fn carriers(api: &Api) -> impl Iterator<Item = &HeaderName> {
    let declared = api.places.iter().filter_map(|place| match place {
        Place::Header(name) => Some(name),
        _ => None,
    });
    [&AUTHORIZATION, &api.credential.header].into_iter().chain(declared)
}

/// Whether the query holds a token in a parameter in which this API takes none (RFC 6750 section 2.3).
pub fn has_undeclared_token(api: &Api, query: &str) -> bool {
    let others: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_decode_str(name).decode_utf8_lossy();
            !api.places.iter().any(|place| *place == Place::Query(name.clone().into_owned()))
        })
        .collect();
    super::super::has_access_token(&others.join("&"))
}

/// The header that carries the token.
#[derive(Debug)]
pub enum CredentialHeader {
    /// The API's own (`LiveToken::header_value`).
    Canonical,
    /// This one.
    Other(HeaderName, HeaderValue),
    /// None: the token is in the target or in the body.
    None,
}

impl Found {
    /// The target without its credential: what policy judges, and what is searched for handles. In its place stands `0` (in a
    /// path segment) or nothing (in a query parameter).
    pub fn judged<'f>(&'f self, target: &Target<'f>) -> Target<'f> {
        let mut judged = target.clone();
        if let Some((index, segment)) = &self.segment {
            judged.segments[*index] = segment;
        }
        if let Some(query) = &self.query {
            judged.query = Some(query);
        }
        judged
    }

    /// The body without its credential, to be searched for handles.
    pub fn body_without_credential<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        self.with_text(body, "").map_or(Cow::Borrowed(body), |body| Cow::Owned(body.to_vec()))
    }

    /// The target to send, with the token in it. `outgoing` is what policy made of [`Found::judged`]. `None` if the token
    /// goes elsewhere.
    pub fn target(&self, outgoing: &str, token: &Secret) -> Result<Option<Secret>, PlacementError> {
        let (path, query) = outgoing.split_once('?').map_or((outgoing, None), |(path, query)| (path, Some(query)));
        match (&self.spot, query) {
            (Spot::Query(name), Some(query)) => {
                let query = Zeroizing::new(text(pairs::replace(query.as_bytes(), name, token.expose()))?);
                Ok(Some(Secret::new(format!("{path}?{}", *query))))
            }
            (Spot::Path { from_end, before, after }, _) => {
                let encoded = utf8_percent_encode(token.expose(), RESERVED_IN_PATH).to_string();
                let encoded = Zeroizing::new(encoded);
                let mut segments: Vec<&str> = path.split('/').collect();
                let whole = Zeroizing::new(format!("{before}{}{after}", *encoded));
                let index = segments.len().checked_sub(from_end + 1);
                let place = index.and_then(|index| segments.get_mut(index));
                *place.ok_or(PlacementError::NotWritable("the path"))? = &whole;
                let path = Zeroizing::new(segments.join("/"));
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Ok(Some(Secret::new(format!("{}{query}", *path))))
            }
            (Spot::Query(_), None) => Err(PlacementError::NotWritable("the query")),
            _ => Ok(None),
        }
    }

    /// The body to send, with the token in it. `None` if the token goes elsewhere.
    pub fn body(&self, body: &[u8], token: &Secret) -> Option<Zeroizing<Vec<u8>>> {
        self.with_text(body, token.expose())
    }

    fn with_text(&self, body: &[u8], text: &str) -> Option<Zeroizing<Vec<u8>>> {
        match &self.spot {
            Spot::Form(name) => Some(Zeroizing::new(pairs::replace(body, name, text))),
            Spot::Json(steps) => {
                let place = json::find(body, steps).ok().flatten()?;
                Some(Zeroizing::new(json::replace(body, &place, text)))
            }
            _ => None,
        }
    }

    /// The header to set, once all [`carriers`] are removed.
    pub fn header(&self, token: &Secret) -> Result<CredentialHeader, PlacementError> {
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| PlacementError::NotWritable("a header"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        match &self.spot {
            Spot::Canonical => Ok(CredentialHeader::Canonical),
            Spot::Header(name) => Ok(CredentialHeader::Other(name.clone(), sensitive(token.expose())?)),
            Spot::Basic { half, other } => {
                let token = token.expose();
                // A user name ends at the first colon (RFC 7617 section 2).
                if *half == BasicHalf::User && token.contains(':') {
                    return Err(PlacementError::NotWritable("the user name of Basic"));
                }
                let pair = Zeroizing::new(match half {
                    BasicHalf::User => format!("{token}:{other}"),
                    BasicHalf::Password => format!("{other}:{token}"),
                });
                let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
                Ok(CredentialHeader::Other(AUTHORIZATION, sensitive(&value)?))
            }
            Spot::Query(_) | Spot::Form(_) | Spot::Json(_) | Spot::Path { .. } => Ok(CredentialHeader::None),
        }
    }
}

/// What is written into targets is ASCII, and targets are.
fn text(bytes: Vec<u8>) -> Result<String, PlacementError> {
    String::from_utf8(bytes).map_err(|_| PlacementError::NotWritable("the query"))
}

#[cfg(test)]
mod tests;
