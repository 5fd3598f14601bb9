//! Revocation: the client gives a grant back.

use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request};
use serde_json::json;

use crate::api;
use crate::clock;
use crate::credentials;
use crate::faults::{Endpoint, FaultKind};
use crate::misbehave;
use crate::profile::Profile;
use crate::reply::{Reply, empty, json as json_reply, read};
use crate::server::Call;
use crate::settings::ClientAuth;
use crate::state::end_grant;
use crate::token::Parameters;
use crate::token_reply;

/// Whether this is GitHub's way: `DELETE …/applications/{client_id}/token` or `/grant`.
pub(crate) fn is_github_revocation(profile: Profile, method: &Method, rest: &str) -> bool {
    let rest = rest.strip_prefix("api/").unwrap_or(rest);
    let ends = rest.ends_with("/token") || rest.ends_with("/grant");
    profile.is_github() && method == Method::DELETE && rest.starts_with("applications/") && ends
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
