//! The token endpoint: exchanging codes, and refreshing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::clock;
use crate::company::Company;
use crate::credentials;
use crate::faults::{Endpoint, FaultKind};
use crate::misbehave;
use crate::profile::Profile;
use crate::reply::{Reply, empty, read};
use crate::rotation::{self, Issued};
use crate::server::Call;
use crate::settings::{RequestFormat, Rotation, Settings};
use crate::state::State;
use crate::token_reply::{self, Refusal, RefusalKind};

/// Parameters of a request; the first value counts.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    values: BTreeMap<String, String>,
    /// A name that came twice, which OAuth forbids.
    pub(crate) repeated: Option<String>,
}

/// Answers `POST /P/token`.
pub(crate) async fn answer(call: Call, endpoint_name: &str, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = read(body).await else {
        return empty(400);
    };
    let mut parameters = Parameters::from_body(&parts.headers, &body);
    if endpoint_name == "refresh" && parameters.get("grant_type").is_none() {
        // An endpoint for nothing else needs not be told.
        parameters.add("grant_type".to_owned(), "refresh_token".to_owned());
    }
    let endpoint = match parameters.get("grant_type") {
        Some("refresh_token") => Endpoint::Refresh,
        Some("authorization_code") => Endpoint::Code,
        _ => Endpoint::Token,
    };
    if !is_place(call.profile, endpoint_name, endpoint) {
        return empty(404);
    }
    let undecided = call.shared.undecided();
    let fault = arrive(&call, endpoint);
    let headers = parts.headers.clone();
    let profile = call.profile;
    misbehave::around(
        fault,
        &call.cutter.clone(),
        move |error, description, status| token_reply::error(profile, &headers, error, description, status),
        async move {
            let reply = commit(&call, &parts, &parameters);
            drop(undecided);
            reply
        },
    )
    .await
}

/// Whether this is where such a request belongs: some companies refresh at an endpoint of its own.
fn is_place(profile: Profile, name: &str, endpoint: Endpoint) -> bool {
    let hosts = profile.company().map(|company| company.hosts.as_slice()).unwrap_or_default();
    let apart = hosts.iter().any(|host| host.endpoints.contains_key("refresh"));
    let expected = if apart && endpoint == Endpoint::Refresh { "refresh" } else { "token" };
    name == expected
}

/// Counts the call and says what should go wrong with it.
fn arrive(call: &Call, endpoint: Endpoint) -> Option<FaultKind> {
    let mut state = call.shared.lock();
    let fault = state.due_fault(call.profile, endpoint);
    if fault != Some(FaultKind::ResetBeforeReading) {
        let counters = &mut state.profile(call.profile).ledger.counters;
        match endpoint {
            Endpoint::Refresh => counters.refresh_attempts += 1,
            Endpoint::Code => counters.code_exchanges += 1,
            _ => {}
        }
    }
    fault
}

fn commit(call: &Call, parts: &Parts, parameters: &Parameters) -> Reply {
    let outcome = issue(&mut call.shared.lock(), call.profile, parts, parameters);
    match outcome {
        Ok(issued) => token_reply::success(call, &parts.headers, issued),
        Err(refusal) => token_reply::refusal(call.profile, &parts.headers, &refusal),
    }
}

fn issue(state: &mut State, profile: Profile, parts: &Parts, parameters: &Parameters) -> Result<Issued, Refusal> {
    let settings = state.settings(profile);
    let grant_type = parameters.get("grant_type").unwrap_or_default();
    let outcome = check_request(profile, &settings, &parts.headers, parameters).and_then(|()| match grant_type {
        "authorization_code" => exchange(state, profile, parameters),
        "refresh_token" => refresh(state, profile, &settings, parameters),
        _ => Err(Refusal::new(RefusalKind::UnsupportedGrantType, grant_type)),
    });
    let counters = &mut state.profile(profile).ledger.counters;
    match (grant_type, &outcome) {
        ("authorization_code", Ok(_)) => counters.code_exchanges_ok += 1,
        ("refresh_token", Ok(_)) => counters.refreshes_ok += 1,
        ("refresh_token", Err(_)) => counters.refreshes_rejected += 1,
        _ => {}
    }
    if let Err(refusal) = &outcome {
        let known = state.profile(profile);
        let presented = parameters.get("refresh_token").unwrap_or_default();
        let place = known.refresh_by_value.get(presented).copied();
        let id = place.map(|place| {
            let grant = &known.ledger.grants[place.grant];
            grant.refresh_tokens[place.token].id.clone()
        });
        let kind = match grant_type {
            "refresh_token" => "refresh_refused",
            "authorization_code" => "code_refused",
            _ => "token_refused",
        };
        state.event(profile, kind, id.as_deref(), &*refusal.description);
    }
    outcome
}

fn check_request(
    profile: Profile,
    settings: &Settings,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<(), Refusal> {
    let fits = match settings.request_format {
        RequestFormat::Form => is(headers, "application/x-www-form-urlencoded"),
        RequestFormat::Json => is(headers, "application/json"),
        RequestFormat::FormOrJson => true,
    };
    if !fits {
        let why = format!("the body must be {:?}", settings.request_format);
        return Err(Refusal::new(RefusalKind::InvalidRequest, why));
    }
    if let Some(name) = &parameters.repeated {
        let why = format!("{name} is repeated");
        return Err(Refusal::new(RefusalKind::InvalidRequest, why));
    }
    if let Some(why) = profile.company().and_then(|company| lacks(company, headers, parameters)) {
        return Err(Refusal::new(RefusalKind::InvalidRequest, why));
    }
    credentials::check(settings, settings.client_auth, headers, parameters)
        .map_err(|why| Refusal::new(RefusalKind::InvalidClient, why))
}

/// What the company's file insists on, and is not there.
fn lacks(company: &Company, headers: &HeaderMap, parameters: &Parameters) -> Option<String> {
    if let Some(name) = headers_lacking(&company.token.headers, headers) {
        return Some(format!("the header {name} is missing or wrong"));
    }
    let required = match parameters.get("grant_type") {
        Some("refresh_token") => &company.token.refresh_requires,
        _ => &company.token.exchange_requires,
    };
    let lacking = required.iter().find(|(name, value)| parameters.get(name) != Some(value));
    lacking.map(|(name, value)| format!("{name} must be {value}"))
}

/// The first of these headers that a request has not, or with another value; `*` is any.
pub(crate) fn headers_lacking<'n>(wanted: &'n BTreeMap<String, String>, headers: &HeaderMap) -> Option<&'n str> {
    let sent = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let lacking = wanted.iter().find(|(name, value)| sent(name).is_none_or(|sent| *value != "*" && sent != *value));
    lacking.map(|(name, _)| name.as_str())
}

fn exchange(state: &mut State, profile: Profile, parameters: &Parameters) -> Result<Issued, Refusal> {
    let bad_code = |why: &str| Err(Refusal::new(RefusalKind::BadCode, why));
    let presented = parameters.get("code").unwrap_or_default();
    let Some(code) = state.profile(profile).codes.get_mut(presented) else {
        return bad_code("unknown code");
    };
    // Presented once is used, even if the rest is wrong: no second guess for a thief.
    if std::mem::replace(&mut code.used, true) {
        return bad_code("the code was already used");
    }
    let code = code.clone();
    if code.expires_at_ms.is_some_and(|end| clock::now_ms() >= end) {
        return bad_code("the code expired");
    }
    if parameters.get("redirect_uri") != Some(&code.redirect_uri) {
        let why = "redirect_uri differs from the authorization's";
        return Err(Refusal::new(RefusalKind::RedirectMismatch, why));
    }
    match (&code.challenge, parameters.get("code_verifier")) {
        (None, None) => {}
        (Some(challenge), Some(verifier)) if *challenge == s256(verifier) => {}
        (Some(_), Some(_)) => return bad_code("code_verifier does not fit"),
        (Some(_), None) => return bad_code("code_verifier is missing"),
        (None, Some(_)) => return bad_code("code_verifier without code_challenge"),
    }
    Ok(rotation::open_grant(state, profile, &code, parameters.get("scope")))
}

fn refresh(
    state: &mut State,
    profile: Profile,
    settings: &Settings,
    parameters: &Parameters,
) -> Result<Issued, Refusal> {
    let bad_token = |why: String| Refusal::new(RefusalKind::BadRefreshToken, why);
    if settings.rotation == Rotation::None {
        let why = "there are no refresh tokens";
        return Err(Refusal::new(RefusalKind::UnsupportedGrantType, why));
    }
    let presented = parameters.get("refresh_token").unwrap_or_default();
    let known = state.profile(profile);
    let Some(place) = known.refresh_by_value.get(presented).copied() else {
        return Err(bad_token("unknown refresh token".to_owned()));
    };
    let original = known.ledger.grants[place.grant].redirect_uri.as_str();
    if profile == Profile::Gitlab && parameters.get("redirect_uri") != Some(original) {
        let why = "redirect_uri differs from the authorization's";
        return Err(Refusal::new(RefusalKind::RedirectMismatch, why));
    }
    rotation::refresh(state, profile, place, parameters.get("scope")).map_err(bad_token)
}

fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Whether the body says that it is of this type.
pub(crate) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(media_type))
}

impl Parameters {
    /// From a form-encoded body or a query.
    pub(crate) fn from_form(form: &[u8]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in form_urlencoded::parse(form) {
            parameters.add(name.into_owned(), value.into_owned());
        }
        parameters
    }

    /// From a body of either encoding.
    pub(crate) fn from_body(headers: &HeaderMap, body: &Bytes) -> Parameters {
        if !is(headers, "application/json") {
            return Parameters::from_form(body);
        }
        Parameters::from_json(serde_json::from_slice(body).unwrap_or_default())
    }

    /// From a JSON object.
    pub(crate) fn from_json(json: Value) -> Parameters {
        let mut parameters = Parameters::default();
        if let Value::Object(fields) = json {
            for (name, value) in fields {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                parameters.add(name, text);
            }
        }
        parameters
    }

    fn add(&mut self, name: String, value: String) {
        match self.values.entry(name) {
            Entry::Occupied(known) => {
                self.repeated.get_or_insert_with(|| known.key().clone());
            }
            Entry::Vacant(new) => {
                new.insert(value);
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter();
        values.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
