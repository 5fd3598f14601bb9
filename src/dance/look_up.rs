//! What a look-up asks and what its reply offers. Nothing here reaches the network: [`super::sites`] does.
//!
//! Replies are strangers' texts: values that could not stand where the entry puts them make an item not count, names are
//! shown without what could mislead a reader, and lists have an end.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use regex_lite::Regex;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::base::digest::sha256;
use crate::base::http::{Request, Response};
use crate::base::secret::Secret;
use crate::base::shown::shown;
use crate::catalogue::Entry;
use crate::catalogue::entry::Lookup;
use crate::catalogue::uses::Uses;
use crate::model::connection::Captured;
use crate::oauth::token_response::text_or_number;

/// One of the sites, tenants or organizations that a connection may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What to call it; somebody else's text.
    pub name: String,
    /// What would be captured.
    pub captured: Captured,
}

/// Longer values are none.
const LONGEST_VALUE: usize = 1024;
/// More items are not offered.
const MOST_ITEMS: usize = 500;
/// More are not looked at: a list may be long without offering anything.
const MOST_READ: usize = 5_000;

/// What a look-up says besides the token; `None` if it is no header.
pub fn headers(look_up: &Lookup) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &look_up.headers {
        headers.insert(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
    }
    Some(headers)
}

/// The request of a look-up; `None` if the token fits into no header.
pub fn request(look_up: &Lookup, access_token: &Secret) -> Option<Request> {
    let mut headers = headers(look_up)?;
    let bearer = Zeroizing::new(format!("Bearer {}", access_token.expose()));
    let mut bearer = HeaderValue::from_str(&bearer).ok()?;
    bearer.set_sensitive(true);
    headers.insert(AUTHORIZATION, bearer);
    Some(Request { method: Method::GET, url: look_up.url.clone(), headers, body: Zeroizing::default() })
}

/// Whether a reply promises that another try may work.
pub fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// What a reply offers, or why it cannot be understood. The reason holds nothing of the reply.
pub fn read(entry: &Entry, look_up: &Lookup, reply: &Response) -> Result<Vec<Item>, String> {
    if !reply.status.is_success() {
        return Err(format!("HTTP status {}", reply.status.as_u16()));
    }
    let body: Value = serde_json::from_slice(&reply.body).map_err(|_| "the reply is not JSON".to_owned())?;
    let found = body.pointer(&look_up.items).ok_or_else(|| format!("the reply has nothing at {:?}", look_up.items))?;
    let items = match found {
        Value::Array(items) => items.as_slice(),
        Value::Object(_) => std::slice::from_ref(found),
        _ => return Err(format!("the reply has no list at {:?}", look_up.items)),
    };
    let uses = Uses::of(entry);
    let patterns: Patterns<'_> =
        look_up.patterns.iter().map(|(name, pattern)| (name.as_str(), Regex::new(pattern).ok())).collect();
    let mut known = BTreeSet::new();
    let counting = items.iter().take(MOST_READ).filter(|item| counts(look_up, item));
    let offered = counting.filter_map(|item| read_item(look_up, &uses, &patterns, item));
    // Some providers name a site once for each product: what is the same to us is one.
    Ok(offered.filter(|item| known.insert(needed(&uses, &item.captured))).take(MOST_ITEMS).collect())
}

fn needed(uses: &Uses, captured: &Captured) -> Captured {
    let is_needed = captured.keys().any(|name| uses.needs(name));
    captured.iter().filter(|(name, _)| !is_needed || uses.needs(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn counts(look_up: &Lookup, item: &Value) -> bool {
    let is_one_of = |value: &Value, wanted: &[String]| {
        let text = match value {
            Value::Bool(value) => Some(value.to_string()),
            value => text_or_number(value),
        };
        text.is_some_and(|text| wanted.contains(&text))
    };
    look_up.only.iter().all(|(place, wanted)| match item.pointer(place) {
        Some(Value::Array(values)) => values.iter().any(|value| is_one_of(value, wanted)),
        Some(value) => is_one_of(value, wanted),
        None => false,
    })
}

/// What captured values must look like, each made ready once; nothing fits one that cannot be.
type Patterns<'l> = BTreeMap<&'l str, Option<Regex>>;

/// `None` if a value that is needed is missing, or could not stand where it is to.
fn read_item(look_up: &Lookup, uses: &Uses, patterns: &Patterns<'_>, item: &Value) -> Option<Item> {
    let mut captured = Captured::new();
    for (name, place) in &look_up.capture {
        let value = item.pointer(place).and_then(text_or_number).filter(|value| value.len() <= LONGEST_VALUE);
        let value = if uses.needs(name) { value } else { value.map(|value| shown(&value)) };
        let has_pattern = |value: &str| match patterns.get(name.as_str()) {
            Some(pattern) => pattern.as_ref().is_some_and(|pattern| pattern.is_match(value)),
            None => true,
        };
        let fits = |value: &String| !value.is_empty() && uses.accepts(name, value) && has_pattern(value);
        match value.filter(fits) {
            Some(value) => drop(captured.insert(name.clone(), value)),
            None if uses.needs(name) => return None,
            None => {}
        }
    }
    let name = look_up.item_name.as_ref().and_then(|place| text_or_number(item.pointer(place)?));
    let name = name.map(|name| shown(&name)).filter(|name| !name.is_empty());
    let values = || captured.values().cloned().collect::<Vec<_>>().join(", ");
    let name = name.unwrap_or_else(|| shown(&values()));
    (!captured.is_empty()).then_some(Item { name, captured })
}

/// All that several look-ups offer together: each item of one with each of the others.
pub fn together(offers: Vec<Vec<Item>>) -> Vec<Item> {
    let mut all: Option<Vec<Item>> = None;
    for offer in offers {
        all = Some(match all {
            None => offer,
            Some(before) => {
                let pairs = before.iter().flat_map(|one| offer.iter().map(move |other| join(one, other)));
                pairs.take(MOST_ITEMS).collect()
            }
        });
    }
    all.unwrap_or_default()
}

fn join(one: &Item, other: &Item) -> Item {
    let captured = one.captured.clone().into_iter().chain(other.captured.clone()).collect();
    Item { name: shown(&format!("{}, {}", one.name, other.name)), captured }
}

/// What a page may call an item: the same for the same values of these names, on every day.
pub fn id(captured: &Captured, needed: &BTreeSet<String>) -> String {
    let named = captured.iter().filter(|(name, _)| needed.is_empty() || needed.contains(*name));
    // With their lengths, so that no two sets of values share their bytes.
    let text: String = named.map(|(name, value)| format!("{}:{name}={}:{value};", name.len(), value.len())).collect();
    data_encoding::BASE32_NOPAD.encode(&sha256(text.as_bytes())[..10]).to_lowercase()
}

/// What follows from what is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is for this one.
    For(Item),
    /// The user chooses, perhaps later.
    Open,
    /// It was for one that is not offered.
    Gone {
        /// The name of the value that says so.
        name: String,
        /// The value of the earlier site.
        connected: String,
        /// That of the only one there is; `None` if there are several, or none.
        offered: Option<String>,
    },
}

/// Chooses among items: the earlier site, or the only one there is; never another one than the earlier one where a value of
/// these names says that they differ.
pub fn decide(items: &[Item], realm: &[&String], earlier: &Captured) -> Decision {
    let told_by: Vec<&String> = realm.iter().copied().filter(|name| earlier.contains_key(*name)).collect();
    let is_earlier = |item: &&Item| match told_by.as_slice() {
        [] => !earlier.is_empty() && item.captured == *earlier,
        names => names.iter().all(|name| item.captured.get(*name) == earlier.get(*name)),
    };
    match (items, items.iter().find(is_earlier), told_by.first()) {
        (_, Some(item), _) => Decision::For(item.clone()),
        (items, None, Some(name)) => Decision::Gone {
            name: (*name).clone(),
            connected: earlier[*name].clone(),
            offered: match items {
                [item] => item.captured.get(*name).cloned(),
                _ => None,
            },
        },
        ([item], None, None) => Decision::For(item.clone()),
        _ => Decision::Open,
    }
}

#[cfg(test)]
mod tests;
