//! Whether an entry that has the right shape makes sense: what belongs together is there, and what is named exists.

use crate::base::duration::DurationText;
use crate::base::toml_document::{Document, Problem, join};
use crate::catalogue::entry::{Entry, RotationModel};
use crate::catalogue::place::{Fills, Place};
use crate::catalogue::template::variables;
use crate::model::handle;
use crate::model::names::TokenName;

/// What a schema cannot say.
pub fn check_sense(entry: &Entry, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let captured = captured_names(entry);
    let mut problems_of_company = Vec::new();
    let mut must_be_captured = |path: String, text: &str| {
        for name in variables(text).into_iter().filter(|name| !captured.contains(name)) {
            let message = format!("{{{name}}} is neither an input nor captured; captured are {captured:?}");
            problems.push(document.problem(&path, message));
        }
    };
    for (name, api) in &entry.apis {
        let path = join("apis", name);
        must_be_captured(format!("{path}.origin"), &api.origin);
        for prefix in api.paths.iter().chain(&api.encoded_slash_paths) {
            must_be_captured(format!("{path}.paths"), prefix);
        }
        for value in api.headers.always.values() {
            must_be_captured(format!("{path}.headers"), value);
        }
    }
    for value in entry.api.headers.always.values() {
        must_be_captured("api.headers".to_owned(), value);
    }
    if let Some(company) = &entry.company {
        must_be_captured("company.path".to_owned(), &company.path);
        for (key, text) in [("company.path", &company.path), ("company.name", &company.name)] {
            if !text.starts_with('/') {
                problems_of_company.push(document.problem(key, format!("{text:?} does not begin with a slash")));
            }
        }
    }
    for name in entry.realm.iter().filter(|name| !captured.contains(name)) {
        let message = format!("{name:?} is not captured; captured are {captured:?}");
        problems.push(document.problem("realm", message));
    }
    for (path, headers) in std::iter::once(("api".to_owned(), &entry.api.headers))
        .chain(entry.apis.iter().map(|(name, api)| (join("apis", name), &api.headers)))
    {
        for name in headers.default.iter().filter(|(_, value)| !variables(value).is_empty()).map(|(name, _)| name) {
            let key = format!("{path}.headers.default.{name}");
            problems.push(document.problem(&key, "a default header has no placeholders; use `always`"));
        }
    }
    for (name, api) in &entry.apis {
        let path = join("apis", name);
        for prefix in api.paths.iter().chain(&api.encoded_slash_paths) {
            let whole_segments = prefix.split('/').all(|segment| {
                !segment.contains(['{', '}'])
                    || (segment.starts_with('{') && variables(segment).len() == 1 && segment.ends_with('}'))
            });
            if !prefix.starts_with('/') || !whole_segments {
                let message =
                    format!("{prefix:?} is not a path prefix: it begins with / and a {{name}} is a whole segment");
                problems.push(document.problem(&format!("{path}.paths"), message));
            }
        }
        if !variables(&api.origin).is_empty() && api.origin_suffixes.is_empty() {
            let message = "is missing: an origin from a captured value must be bounded";
            problems.push(document.problem(&format!("{path}.origin_suffixes"), message));
        }
    }
    problems.append(&mut problems_of_company);
    let rotation = &entry.rotation;
    let needed =
        [(RotationModel::Leeway, "grace", &rotation.grace), (RotationModel::Interval, "interval", &rotation.interval)];
    for (model, key, value) in needed {
        if rotation.model == model && value.is_none_or(|DurationText(value)| value.is_zero()) {
            let message = "is missing: without it this model is `single_use`";
            problems.push(document.problem(&join("rotation", key), message));
        }
    }
    check_callback(entry, document, &mut problems);
    check_look_ups(entry, document, &mut problems);
    check_places(entry, document, &captured, &mut problems);
    check_handle(entry, document, &mut problems);
    check_tokens(entry, document, &mut problems);
    check_revoke(entry, document, &captured, &mut problems);
    if !entry.apis.contains_key(&entry.default_api) {
        let known: Vec<&String> = entry.apis.keys().collect();
        problems.push(document.problem("default_api", format!("is not one of the APIs {known:?}")));
    }
    if entry.token.client_authentication.is_empty() {
        problems.push(document.problem("token.client_authentication", "is empty; expected at least one way"));
    }
    problems
}

/// What a callback is compared with is known before it comes, and what signs it has a name.
fn check_callback(entry: &Entry, document: &Document, problems: &mut Vec<Problem>) {
    for (name, value) in &entry.authorize.expected {
        for variable in variables(value) {
            let message = format!("{{{variable}}} is not an input");
            problems.push(document.problem(&join("authorize.expected", name), message));
        }
    }
    let signature = entry.authorize.callback_signature.as_ref();
    if signature.is_some_and(|signature| signature.parameter.is_empty()) {
        let key = "authorize.callback_signature.parameter";
        problems.push(document.problem(key, "is empty; expected the name of a parameter"));
    }
}

/// A handle looks one way.
fn check_handle(entry: &Entry, document: &Document, problems: &mut Vec<Problem>) {
    let Some(look) = &entry.handle else { return };
    match &look.prefix {
        Some(_) if look.shape.is_some() => {
            problems.push(document.problem("handle", "is not one look: expected either prefix or shape"));
        }
        Some(prefix) => {
            let problem = |why| document.problem("handle.prefix", why);
            problems.extend(handle::check_prefix(prefix).err().map(problem));
        }
        None if look.shape.is_none() => {
            problems.push(document.problem("handle", "is empty; expected prefix or shape"));
        }
        None => {}
    }
}

/// A place is one thing, and what is filled in was captured.
fn check_places(entry: &Entry, document: &Document, captured: &[String], problems: &mut Vec<Problem>) {
    let of_apis = entry.apis.iter().map(|(name, api)| (join("apis", name), &api.places, &api.fill));
    for (path, places, fill) in std::iter::once(("api".to_owned(), &entry.api.places, &entry.api.fill)).chain(of_apis) {
        for (index, place) in places.iter().enumerate() {
            if let Err(why) = Place::prepare(place) {
                problems.push(document.problem(&format!("{path}.places[{index}]"), why));
            }
        }
        if let Err(why) = Fills::prepare(std::iter::once(fill)) {
            problems.push(document.problem(&format!("{path}.fill"), why));
        }
        for (kind, names) in [("query", &fill.query), ("header", &fill.header)] {
            for (name, value) in names.iter().filter(|(_, value)| !captured.contains(value)) {
                let message = format!("{value:?} is not captured; captured are {captured:?}");
                problems.push(document.problem(&join(&format!("{path}.fill.{kind}"), name), message));
            }
        }
    }
}

/// Every token that an API wants must come from somewhere, and each must be refreshed without a word to the others.
fn check_tokens(entry: &Entry, document: &Document, problems: &mut Vec<Problem>) {
    let named = &entry.token.response.more_tokens;
    for (index, token) in named.iter().enumerate() {
        if let Err(expected) = token.name.parse::<TokenName>() {
            let key = format!("token.response.more_tokens[{index}].name");
            problems.push(document.problem(&key, format!("{:?} is not {expected}", token.name)));
        }
        if named.iter().take(index).any(|other| other.name == token.name) {
            let key = format!("token.response.more_tokens[{index}].name");
            problems.push(document.problem(&key, format!("{:?} stands there twice", token.name)));
        }
        let places = [
            ("access_token", Some(&token.access_token)),
            ("refresh_token", token.refresh_token.as_ref()),
            ("expires_in", token.expires_in.as_ref()),
        ];
        for (name, place) in places {
            if let Some(place) = place.filter(|place| !place.starts_with('/')) {
                let key = format!("token.response.more_tokens[{index}].{name}");
                let message = format!("{place:?} is not a JSON pointer: expected one such as \"/authed_user/{name}\"");
                problems.push(document.problem(&key, message));
            }
        }
    }
    for (name, api) in &entry.apis {
        let Some(token) = &api.token else { continue };
        let key = join(&join("apis", name), "token");
        if token.parse::<TokenName>().is_err() {
            problems.push(document.problem(&key, format!("{token:?} is not {}", TokenName::EXPECTED)));
        } else if named.iter().any(|named| named.name == *token) {
        } else if !entry.rotation.multi_resource {
            let message = format!(
                "there is no token {token:?}: expected a name of token.response.more_tokens, or rotation.multi_resource"
            );
            problems.push(document.problem(&key, message));
        } else if !entry.rotation.branches() {
            let message = "several tokens from one refresh token need a rotation model under which it can be used side by \
                           side: static or overlap";
            problems.push(document.problem(&key, message));
        } else if api.scopes.is_empty() {
            problems.push(document.problem(&key, "is asked for by its scopes; expected `scopes` beside it"));
        }
    }
}

/// What a revocation is filled in with must be there when it is asked for.
fn check_revoke(entry: &Entry, document: &Document, captured: &[String], problems: &mut Vec<Problem>) {
    const OURS: [&str; 4] = ["access_token", "refresh_token", "client_id", "client_secret"];
    let Some(call) = &entry.revoke else { return };
    for (kind, values) in [("body", &call.body), ("query", &call.query)] {
        for (name, value) in values {
            let unknown = |variable: &String| !OURS.contains(&variable.as_str()) && !captured.contains(variable);
            for variable in variables(value).into_iter().filter(unknown) {
                let message = format!("{{{variable}}} is none of {OURS:?}, nor captured; captured are {captured:?}");
                problems.push(document.problem(&join(&format!("revoke.{kind}"), name), message));
            }
        }
    }
}

/// Look-ups point into replies, and what they capture has one source.
fn check_look_ups(entry: &Entry, document: &Document, problems: &mut Vec<Problem>) {
    let elsewhere: Vec<&String> = (entry.authorize.capture.iter().map(|capture| &capture.to))
        .chain(entry.token.response.capture.keys())
        .collect();
    for (index, look_up) in entry.post_connect.iter().enumerate() {
        let path = format!("post_connect[{index}]");
        let mut problem = |key: &str, message: String| problems.push(document.problem(&join(&path, key), message));
        let pointers = [("items", &look_up.items)].into_iter();
        let pointers = pointers.chain(look_up.item_name.as_ref().map(|place| ("item_name", place)));
        let pointers = pointers.chain(look_up.capture.values().map(|place| ("capture", place)));
        for (key, place) in pointers.chain(look_up.only.keys().map(|place| ("only", place))) {
            if !place.is_empty() && !place.starts_with('/') {
                problem(
                    key,
                    format!("{place:?} is not a JSON pointer: expected one such as \"/id\", or \"\" for all of it"),
                );
            }
        }
        if look_up.capture.is_empty() {
            problem("capture", "is empty: there is nothing to look up".to_owned());
        }
        let earlier = entry.post_connect[..index].iter().flat_map(|earlier| earlier.capture.keys());
        let others: Vec<&String> = elsewhere.iter().copied().chain(earlier).collect();
        for name in look_up.capture.keys() {
            if variables(&format!("{{{name}}}")).is_empty() {
                problem("capture", format!("{name:?} is not a name: expected a-z, 0-9 and _"));
            }
            if others.contains(&name) {
                problem("capture", format!("{name:?} is captured elsewhere too"));
            }
        }
        for name in look_up.patterns.keys().filter(|name| !look_up.capture.contains_key(*name)) {
            problem("patterns", format!("{name:?} is not captured here; captured are {:?}", look_up.capture.keys()));
        }
        for (place, _) in look_up.only.iter().filter(|(_, values)| values.is_empty()) {
            problem("only", format!("{place:?} has no values: no item would count"));
        }
        for (name, value) in &look_up.headers {
            let is_good = name.parse::<http::HeaderName>().is_ok() && http::HeaderValue::from_str(value).is_ok();
            if !is_good || name.eq_ignore_ascii_case("authorization") {
                problem("headers", format!("{name:?} is not a header that can be sent here"));
            }
        }
    }
}

fn captured_names(entry: &Entry) -> Vec<String> {
    let from_callback = entry.authorize.capture.iter().map(|capture| &capture.to);
    let from_reply = entry.token.response.capture.keys();
    let from_lookups = entry.post_connect.iter().flat_map(|lookup| lookup.capture.keys());
    from_callback.chain(from_reply).chain(from_lookups).cloned().collect()
}
