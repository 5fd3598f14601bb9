//! The provider's API: who may call it, and where a call goes.

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};

use crate::answers;
use crate::api_refusal::{self, ApiRefusal};
use crate::calls::ApiCall;
use crate::clock;
use crate::company::{self, Fit};
use crate::credentials;
use crate::faults::{Endpoint, FaultKind};
use crate::mark::{self, SearchedBody, SearchedInner};
use crate::misbehave;
use crate::profile::Profile;
use crate::reply::{Reply, drain, json, read};
use crate::rotation;
use crate::server::Call;
use crate::settings::Settings;
use crate::state::State;
use crate::token;
use crate::tools;

/// A call that was admitted.
pub(crate) struct Admitted {
    pub(crate) call: Call,
    /// The path below the API root, raw.
    pub(crate) path: String,
    /// Whose token it was.
    pub(crate) grant_id: String,
    pub(crate) realm: String,
    pub(crate) user: String,
    pub(crate) token_id: String,
}

impl Admitted {
    /// What stands for the provider's API origin, as an absolute URL.
    pub(crate) fn root(&self) -> String {
        format!("{}{}", self.call.origin, self.call.api_base)
    }
}

/// Answers anything below `/P/api`; `path` is the rest, raw, with its slash.
pub(crate) async fn answer(call: Call, path: &str, request: Request<Incoming>) -> Reply {
    let fault = call.shared.lock().due_fault(call.profile, Endpoint::Api);
    if fault == Some(FaultKind::ResetBeforeReading) {
        match call.cutter.cut_and_vanish().await {}
    }
    let (parts, body) = request.into_parts();
    let (token, body) = presented(call.profile, &parts, body).await;
    let number = write_down(&mut call.shared.lock(), call.profile, &call.host, path, &parts, token.as_deref());
    let body = SearchedBody::new(body, &call.shared, number);
    let path = path.to_owned();
    let cutter = call.cutter.clone();
    misbehave::around(
        fault,
        &cutter,
        |error, description, status| {
            let body = serde_json::json!({"error": error, "error_description": description});
            json(status.unwrap_or(400), &body)
        },
        async move { serve(call, path, number, token, parts, body).await },
    )
    .await
}

/// Counts a call, and writes down whose token it carries. Returns its number.
fn write_down(state: &mut State, profile: Profile, host: &str, path: &str, parts: &Parts, token: Option<&str>) -> u64 {
    let known = state.profile(profile);
    known.ledger.counters.api_calls += 1;
    let place = token.and_then(|token| known.access_by_value.get(token));
    let grant = place.map(|place| &known.ledger.grants[place.grant]);
    let call = ApiCall {
        profile: profile.name().to_owned(),
        method: parts.method.to_string(),
        host: host.to_owned(),
        path: path.to_owned(),
        user: grant.map(|grant| grant.user.clone()),
        grant: grant.map(|grant| grant.id.clone()),
        generation: place.map(|place| place.token as u64 + 1),
        accepted: false,
        marker: mark::first(&parts.uri.to_string()),
    };
    state.calls.add(call)
}

async fn serve(
    call: Call,
    path: String,
    number: u64,
    token: Option<String>,
    parts: Parts,
    body: SearchedBody,
) -> Reply {
    let admitted = match admit(call, path.clone(), number, token.as_deref(), &parts) {
        Ok(admitted) => admitted,
        Err((profile, refusal)) => {
            drain(body).await;
            return api_refusal::reply(profile, refusal, &path);
        }
    };
    if let Some(name) = tools::wanted(&admitted) {
        return tools::answer(&name, &admitted, &parts, body).await;
    }
    answers::answer(&admitted, &parts, body).await
}

fn admit(
    call: Call,
    path: String,
    number: u64,
    token: Option<&str>,
    parts: &Parts,
) -> Result<Admitted, (Profile, ApiRefusal)> {
    let profile = call.profile;
    let outcome = {
        let mut state = call.shared.lock();
        let now = clock::now_ms();
        let settings = state.settings(profile);
        let known = state.profile(profile);
        let place = token.and_then(|token| known.access_by_value.get(token).copied());
        let mut token_id = None;
        let outcome = match place {
            None => Err(ApiRefusal::Unknown),
            Some(place) => {
                let grant = &mut known.ledger.grants[place.grant];
                let token = &grant.access_tokens[place.token];
                let id = token.id.clone();
                token_id = Some(id.clone());
                if token.dead_at_ms.is_some_and(|dead| now >= dead) {
                    Err(ApiRefusal::Dead)
                } else if !token.is_valid(now) {
                    Err(ApiRefusal::Expired)
                } else if let Some(refusal) = misses(&call, &path, parts, &grant.realm, &settings) {
                    Err(refusal)
                } else {
                    rotation::use_access_token(grant, place.token, &settings, now);
                    Ok((grant.id.clone(), grant.realm.clone(), grant.user.clone(), id))
                }
            }
        };
        let counters = &mut known.ledger.counters;
        let kind = match &outcome {
            Ok(_) => "api_ok",
            Err(ApiRefusal::Unknown) => "api_unknown_token",
            Err(ApiRefusal::Expired | ApiRefusal::Dead) => "api_expired",
            Err(ApiRefusal::WrongRealm) => "api_wrong_realm",
            Err(ApiRefusal::NoSuchPath) => "api_no_such_path",
            Err(ApiRefusal::HeaderMissing) => "api_header_missing",
        };
        let had_been_valid = matches!(outcome, Err(ApiRefusal::Expired | ApiRefusal::Dead));
        counters.api_calls_ok += u64::from(outcome.is_ok());
        counters.api_calls_rejected += u64::from(outcome.is_err());
        counters.api_calls_expired += u64::from(had_been_valid);
        if let Some(call) = state.calls.get(number) {
            call.accepted = outcome.is_ok();
        }
        let detail = format!("{} {path}", parts.method);
        state.event(profile, kind, token_id.as_deref(), detail);
        outcome
    };
    match outcome {
        Err(refusal) => Err((profile, refusal)),
        Ok((grant_id, realm, user, token_id)) => Ok(Admitted { call, path, grant_id, realm, user, token_id }),
    }
}

/// The token that a call presents, and its body: at Slack a form field or a parameter `token` does as well as the header.
async fn presented(profile: Profile, parts: &Parts, body: Incoming) -> (Option<String>, SearchedInner) {
    let headers = &parts.headers;
    let in_header = bearer(profile, headers);
    if profile != Profile::Slack || in_header.is_some() {
        return (in_header, body.boxed_unsync());
    }
    let query = token::Parameters::from_form(parts.uri.query().unwrap_or_default().as_bytes());
    let in_query = query.get("token").map(str::to_owned);
    if in_query.is_some() || !token::is(headers, "application/x-www-form-urlencoded") {
        return (in_query, body.boxed_unsync());
    }
    let form = read(body).await.unwrap_or_default();
    let in_form = token::Parameters::from_form(&form).get("token").map(str::to_owned);
    (in_form, Full::new(form).map_err(|never| match never {}).boxed_unsync())
}

/// What is wrong with a call besides its token.
fn misses(call: &Call, path: &str, parts: &Parts, realm: &str, settings: &Settings) -> Option<ApiRefusal> {
    let Some(company) = call.profile.company() else {
        let lacks = required_header(call).is_some_and(|name| !parts.headers.contains_key(name));
        let is_foreign = !names_realm(call.profile, path, realm);
        return is_foreign.then_some(ApiRefusal::WrongRealm).or(lacks.then_some(ApiRefusal::HeaderMissing));
    };
    match company::path_fit(company, path, realm, settings.sites) {
        Fit::No => return Some(ApiRefusal::NoSuchPath),
        Fit::OtherValue => return Some(ApiRefusal::WrongRealm),
        Fit::Yes => {}
    }
    let missing = company::headers_missing(company, path, &parts.headers, realm, settings.sites);
    missing.map(|_| ApiRefusal::HeaderMissing)
}

/// The header without which a company with logic of its own serves nobody, where it is played under its real name.
pub(crate) fn required_header(call: &Call) -> Option<&'static str> {
    match call.profile {
        _ if !call.api_base.is_empty() => None,
        Profile::Github | Profile::GithubOauthApp => Some("user-agent"),
        Profile::Notion => Some("notion-version"),
        _ => None,
    }
}

/// The token in the header. Two `Authorization` headers present none: which one would be meant?
pub(crate) fn bearer(profile: Profile, headers: &HeaderMap) -> Option<String> {
    if let Some(name) = profile.company().and_then(|company| company.api.token_header.as_deref()) {
        return headers.get(name)?.to_str().ok().map(str::to_owned);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let github = profile.is_github();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(token.trim().to_owned()),
        "token" if github => Some(token.trim().to_owned()),
        // As git does over https: x-access-token:TOKEN.
        "basic" if github => credentials::basic(headers).map(|(_, password)| password),
        _ => None,
    }
}

/// QuickBooks: whether a company path names the token's company. Read as leniently as a careless
/// server would (escapes and dot segments resolved), so that a smuggled path counts as what it
/// could reach.
fn names_realm(profile: Profile, path: &str, realm: &str) -> bool {
    if profile != Profile::Quickbooks {
        return true;
    }
    let decoded = percent_decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    match segments.as_slice() {
        ["v3", "company", named, ..] => *named == realm,
        ["v3", "company"] => false,
        _ => true,
    }
}

/// The text with its percent escapes resolved, once.
pub(crate) fn percent_decoded(text: &str) -> String {
    // `+` means a space in forms only.
    let protected = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(format!("x={protected}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
