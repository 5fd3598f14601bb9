//! Revocation: the client gives a grant back.

use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request};
use serde_json::json;

use crate::api;
use crate::api_refusal::{self, ApiRefusal};
use crate::clock;
use crate::company::{Revoke, RevokeAuth, RevokeFormat, RevokeNames, usual_value};
use crate::credentials;
use crate::faults::{Endpoint, FaultKind};
use crate::misbehave;
use crate::profile::Profile;
use crate::reply::{Reply, empty, json as json_reply, read};
use crate::server::Call;
use crate::settings::ClientAuth;
use crate::state::end_grant;
use crate::token::{self, Parameters};
use crate::token_reply;

/// Whether this is GitHub's way: `DELETE …/applications/{client_id}/token` or `/grant`.
pub(crate) fn is_github_revocation(profile: Profile, method: &Method, rest: &str) -> bool {
    let rest = rest.strip_prefix("api/").unwrap_or(rest);
    let ends = rest.ends_with("/token") || rest.ends_with("/grant");
    profile.is_github() && method == Method::DELETE && rest.starts_with("applications/") && ends
}

/// Whether this is the method by which a company that is described by a file has grants given back.
pub(crate) fn is_own_method(profile: Profile, method: &Method) -> bool {
    let revoke = profile.company().and_then(|company| company.revoke.as_ref());
    revoke.is_some_and(|revoke| revoke.method == method.as_str())
}

/// Answers `POST /P/revoke` and GitHub's `DELETE`.
pub(crate) async fn answer(call: Call, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = read(body).await else {
        return empty(400);
    };
    let fault = call.shared.lock().due_fault(call.profile, Endpoint::Revoke);
    if fault == Some(FaultKind::ResetBeforeReading) {
        match call.cutter.cut_and_vanish().await {}
    }
    let mut parameters = Parameters::from_body(&parts.headers, &body);
    if parameters.get("token").is_none() && parameters.get("access_token").is_none() {
        // GitHub's clients do not always name the type of their JSON.
        let json = serde_json::from_slice(&body).unwrap_or_default();
        parameters = Parameters::from_json(json);
    }
    if let Some(revoke) = call.profile.company().and_then(|company| company.revoke.as_ref()) {
        let query = parts.uri.query().unwrap_or_default();
        parameters = match revoke.format {
            Some(RevokeFormat::Query) => Parameters::from_form(query.as_bytes()),
            Some(RevokeFormat::Form) if token::is(&parts.headers, "application/x-www-form-urlencoded") => {
                Parameters::from_form(&body)
            }
            Some(RevokeFormat::Json) if token::is(&parts.headers, "application/json") => {
                Parameters::from_json(serde_json::from_slice(&body).unwrap_or_default())
            }
            _ => Parameters::default(),
        };
    }
    let (headers, profile) = (parts.headers.clone(), call.profile);
    misbehave::around(
        fault,
        &call.cutter.clone(),
        move |error, description, status| token_reply::error(profile, &headers, error, description, status),
        async move { commit(&call, &parts.method, &parts.headers, &parameters) },
    )
    .await
}

fn commit(call: &Call, method: &Method, headers: &HeaderMap, parameters: &Parameters) -> Reply {
    let profile = call.profile;
    if let Some(revoke) = profile.company().and_then(|company| company.revoke.as_ref()) {
        return described(call, revoke, method, headers, parameters);
    }
    if api::required_header(call).is_some_and(|name| !headers.contains_key(name)) {
        call.shared.lock().event(profile, "revoke_refused", None, "a header is missing");
        return api_refusal::reply(profile, ApiRefusal::HeaderMissing, "");
    }
    let mut state = call.shared.lock();
    let settings = state.settings(profile);
    let wanted = match (profile, settings.client_auth) {
        (Profile::Google | Profile::Slack, _) | (_, ClientAuth::None) => None,
        _ => Some(ClientAuth::BasicOrBody),
    };
    let refused = wanted.and_then(|wanted| credentials::check(&settings, wanted, headers, parameters).err());
    if let Some(why) = refused {
        state.event(profile, "revoke_refused", None, &*why);
        drop(state);
        return token_reply::error(profile, headers, "invalid_client", Some(&why), Some(401));
    }
    // Slack takes the token as it does for any other method.
    let bearer = if profile == Profile::Slack { api::bearer(profile, headers) } else { None };
    let presented = parameters.get("token").or(parameters.get("access_token")).or(bearer.as_deref());
    let known = state.profile(profile);
    let grant = presented.and_then(|token| known.grant_of(token));
    let Some(grant) = grant.map(|index| &mut known.ledger.grants[index]) else {
        state.event(profile, "revoke_unknown", None, "");
        drop(state);
        return unknown_token(profile, headers);
    };
    end_grant(grant, clock::now_ms(), true);
    let id = grant.id.clone();
    known.ledger.counters.revokes += 1;
    state.event(profile, "revoked", Some(&id), "by the client");
    match method {
        &Method::DELETE => empty(204),
        _ if profile == Profile::Slack => json_reply(200, &json!({"ok": true, "revoked": true})),
        _ => json_reply(200, &json!({})),
    }
}

/// As the company's file says, and in no other way.
fn described(call: &Call, revoke: &Revoke, method: &Method, headers: &HeaderMap, parameters: &Parameters) -> Reply {
    let profile = call.profile;
    let mut state = call.shared.lock();
    let settings = state.settings(profile);
    let lacking = revoke.requires.iter().find(|(name, value)| {
        let settled = value.replace("{client_id}", &settings.client_id);
        parameters.get(name) != Some(&settled)
    });
    let client = revoke.auth.of_client().map(|auth| credentials::check(&settings, auth, headers, parameters));
    let why = match (lacking, client) {
        _ if revoke.method != method.as_str() => Some(format!("{method} is not how it is done")),
        (Some((name, value)), _) => Some(format!("{name} must be {value}")),
        (None, Some(Err(why))) => Some(why),
        _ => token::headers_lacking(&revoke.headers, headers).map(|name| format!("the header {name} is missing")),
    };
    if let Some(why) = why {
        state.event(profile, "revoke_refused", None, &*why);
        drop(state);
        return token_reply::error(profile, headers, "invalid_request", Some(&why), Some(400));
    }
    let bearer = if revoke.auth == RevokeAuth::Bearer { api::bearer(profile, headers) } else { None };
    let named = revoke.parameter.as_deref().and_then(|name| parameters.get(name)).or(bearer.as_deref());
    let known = state.profile(profile);
    let place = named.and_then(|named| match revoke.names {
        RevokeNames::AnyToken => known.grant_of(named),
        RevokeNames::AccessToken => known.access_by_value.get(named).map(|place| place.grant),
        RevokeNames::RefreshToken => known.refresh_by_value.get(named).map(|place| place.grant),
        RevokeNames::Realm => known.ledger.grants.iter().rposition(|grant| grant.realm == named),
    });
    let Some(grant) = place.map(|index| &mut known.ledger.grants[index]) else {
        state.event(profile, "revoke_unknown", None, "");
        return revoke.unknown.as_ref().unwrap_or(&revoke.done).reply(&usual_value);
    };
    end_grant(grant, clock::now_ms(), !revoke.keeps_access);
    let id = grant.id.clone();
    known.ledger.counters.revokes += 1;
    state.event(profile, "revoked", Some(&id), "by the client");
    revoke.done.reply(&usual_value)
}

/// RFC 7009 has unknown tokens accepted; not everybody follows.
fn unknown_token(profile: Profile, headers: &HeaderMap) -> Reply {
    match profile {
        Profile::Github | Profile::GithubOauthApp => json_reply(404, &json!({"message": "Not Found", "status": "404"})),
        Profile::Google => {
            let why = Some("Token expired or revoked");
            token_reply::error(profile, headers, "invalid_token", why, Some(400))
        }
        Profile::Slack => json_reply(200, &json!({"ok": false, "error": "invalid_auth"})),
        _ => json_reply(200, &json!({})),
    }
}
